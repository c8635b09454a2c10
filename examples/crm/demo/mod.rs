pub struct DownOptions;
