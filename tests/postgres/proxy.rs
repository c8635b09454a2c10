//! A TCP proxy before a server that cuts one connection at the n-th COMMIT: before the server sees it, or before its answer comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees the COMMIT.
    Before,
    /// The server commits, and nobody hears of it.
    After,
}

struct Plan {
    at: usize,
    cut: Cut,
    seen: AtomicUsize,
    done: AtomicBool,
    told: Notify,
}

pub struct Proxy {
    port: u16,
    plan: Arc<Plan>,
    listening: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Proxy {
    pub async fn start(server: u16, at: usize, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let plan =
            Arc::new(Plan { at, cut, seen: AtomicUsize::new(0), done: AtomicBool::new(false), told: Notify::new() });
        let shared = Arc::clone(&plan);
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { port, plan, listening }
    }

    pub fn uri(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Returns when the connection was cut.
    pub async fn cut(&self) {
        loop {
            let told = self.plan.told.notified();
            if self.plan.done.load(Ordering::SeqCst) {
                return;
            }
            told.await;
        }
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, plan: Arc<Plan>) {
    let (mut up, mut down) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let Ok(length @ 1..) = read else { return };
                let commits = up[..length].windows(7).any(|bytes| bytes == b"COMMIT\0");
                let number = if commits { plan.seen.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
                let cut = number == plan.at;
                if cut && plan.cut == Cut::Before {
                    return tell(&plan);
                }
                if server.write_all(&up[..length]).await.is_err() { return }
                if cut {
                    // The answer has come this far, so the server has committed.
                    let _ = server.read(&mut down).await;
                    return tell(&plan);
                }
            }
            read = server.read(&mut down) => {
                let Ok(length @ 1..) = read else { return };
                if client.write_all(&down[..length]).await.is_err() { return }
            }
        }
    }
}

fn tell(plan: &Plan) {
    plan.done.store(true, Ordering::SeqCst);
    plan.told.notify_waiters();
}
