-- Keys, foreign keys with their indexes, and the trigger that would send mail.
alter table public.currency add primary key (code);
alter table public.campaign add primary key (id);
alter table public.account add primary key (id);
alter table public.contact add primary key (id), add constraint contact_email_key unique (email);
alter table public.deal add primary key (id), add constraint deal_amount_check check (amount >= 0);
alter table public.deal_contact add primary key (deal_id, contact_id);
alter table public.activity add primary key (id);
alter table public.note add primary key (id);
alter table public.campaign_send add primary key (id);

create index account_parent_id_idx on public.account (parent_id);
create index contact_account_id_idx on public.contact (account_id);
create index deal_account_id_idx on public.deal (account_id);
create index deal_contact_contact_id_idx on public.deal_contact (contact_id);
create index activity_account_id_idx on public.activity (account_id);
create index activity_deal_id_idx on public.activity (deal_id);
create index activity_contact_id_idx on public.activity (contact_id);
create index note_deal_id_idx on public.note (deal_id);
create index campaign_send_contact_id_idx on public.campaign_send (contact_id);

alter table public.account add constraint account_parent_fkey foreign key (parent_id) references public.account;
alter table public.account add constraint account_currency_fkey foreign key (currency_code) references public.currency;
alter table public.contact add constraint contact_account_fkey foreign key (account_id) references public.account;
alter table public.deal add constraint deal_account_fkey foreign key (account_id) references public.account;
alter table public.deal add constraint deal_currency_fkey foreign key (currency_code) references public.currency;
alter table public.deal_contact add constraint deal_contact_deal_fkey foreign key (deal_id) references public.deal;
alter table public.deal_contact add constraint deal_contact_contact_fkey foreign key (contact_id) references public.contact;
alter table public.activity add constraint activity_account_fkey foreign key (account_id) references public.account;
alter table public.activity add constraint activity_deal_fkey foreign key (deal_id) references public.deal;
alter table public.activity add constraint activity_contact_fkey foreign key (contact_id) references public.contact;
alter table public.note add constraint note_deal_fkey foreign key (deal_id) references public.deal;
alter table public.campaign_send add constraint campaign_send_campaign_fkey foreign key (campaign_id) references public.campaign;
alter table public.campaign_send add constraint campaign_send_contact_fkey foreign key (contact_id) references public.contact;

create function public.queue_welcome_mail() returns trigger language plpgsql as $$
begin
    insert into public.mail_outbox (contact_id, template) values (new.id, 'welcome');
    return null;
end $$;
create trigger contact_welcome after insert on public.contact
    for each row execute function public.queue_welcome_mail();
