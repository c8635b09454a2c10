//! Watches on their way to the operator: frozen, cut off, closed with 410, told twice.
//! Used by the proxy. Every line of a watch is one event.

use std::io;

use axum::body::{Body, Bytes};
use futures::stream::{BoxStream, StreamExt};
use serde_json::json;
use tokio::sync::watch;

use crate::plan::Cut;

/// What holds for all watches of a run now.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mode {
    pub frozen: bool,
    /// Rises with each cut; a watch that began before is cut.
    pub cuts: u64,
    pub how: Option<Cut>,
}

struct Told {
    events: BoxStream<'static, Result<Bytes, axum::Error>>,
    rest: Vec<u8>,
    mode: watch::Receiver<Mode>,
    cuts: u64,
    /// Events that may be told once more.
    past: Vec<Bytes>,
    ended: bool,
}

/// The watch as the operator gets it.
pub fn told(upstream: Body, mode: watch::Receiver<Mode>) -> Body {
    let cuts = mode.borrow().cuts;
    let events = upstream.into_data_stream().boxed();
    let told = Told { events, rest: Vec::new(), mode, cuts, past: Vec::new(), ended: false };
    Body::from_stream(futures::stream::unfold(told, |mut told| async move {
        let next = told.next().await?;
        Some((next, told))
    }))
}

impl Told {
    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            if self.ended {
                return None;
            }
            let now = *self.mode.borrow_and_update();
            if now.cuts > self.cuts {
                self.cuts = now.cuts;
                if let Some(answer) = self.cut(now.how?) {
                    return Some(answer);
                }
                continue;
            }
            if now.frozen {
                self.mode.changed().await.ok()?;
                continue;
            }
            if let Some(line) = self.take_line() {
                self.past.push(line.clone());
                return Some(Ok(line));
            }
            tokio::select! {
                changed = self.mode.changed() => changed.ok()?,
                more = self.events.next() => match more {
                    Some(Ok(bytes)) => self.rest.extend_from_slice(&bytes),
                    Some(Err(error)) => return Some(Err(io::Error::other(error))),
                    None => return None,
                },
            }
        }
    }

    fn take_line(&mut self) -> Option<Bytes> {
        let end = self.rest.iter().position(|byte| *byte == b'\n')?;
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        Some(line.into())
    }

    /// `None`: nothing is to be said now.
    fn cut(&mut self, how: Cut) -> Option<io::Result<Bytes>> {
        let failure = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "the gauntlet says so", "reason": reason, "code": code});
            Some(Ok(Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))))
        };
        self.ended = how != Cut::Again;
        match how {
            Cut::End => None,
            Cut::InEvent => {
                // Half an event reaches the client before the connection breaks.
                self.ended = false;
                self.rest.clear();
                self.events = futures::stream::once(async {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    Err(axum::Error::new(io::Error::from(io::ErrorKind::ConnectionReset)))
                })
                .boxed();
                Some(Ok(Bytes::from_static(br#"{"type":"MODIFIED","object":{"apiVersion":"godwit.dev/v1alpha1","ki"#)))
            }
            Cut::Gone => failure(410, "Expired"),
            Cut::Failure => failure(500, "InternalError"),
            Cut::Again => {
                let past: Vec<u8> = self.past.iter().flatten().copied().collect();
                (!past.is_empty()).then(|| Ok(past.into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn events(lines: &'static [&'static str]) -> Body {
        let lines =
            futures::stream::iter(lines.iter().map(|line| Ok::<_, io::Error>(Bytes::from_static(line.as_bytes()))));
        Body::from_stream(lines.chain(futures::stream::pending()))
    }

    fn watch() -> (watch::Sender<Mode>, BoxStream<'static, Result<Bytes, axum::Error>>) {
        let (mode, seen) = watch::channel(Mode::default());
        // Chunks need not end where events do.
        (mode, told(events(&["first\nsec", "ond\n"]), seen).into_data_stream().boxed())
    }

    fn cut(mode: &watch::Sender<Mode>, how: Cut) {
        mode.send_modify(|mode| *mode = Mode { cuts: mode.cuts + 1, how: Some(how), ..*mode });
    }

    async fn next(stream: &mut BoxStream<'static, Result<Bytes, axum::Error>>) -> String {
        String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_frozen_watch_tells_nothing_until_it_goes_on() {
        let (mode, mut watch) = watch();
        assert_eq!(next(&mut watch).await, "first\n");
        mode.send_modify(|mode| mode.frozen = true);
        assert!(watch.next().now_or_never().is_none());
        mode.send_modify(|mode| mode.frozen = false);
        assert_eq!(next(&mut watch).await, "second\n");
    }

    #[tokio::test]
    async fn a_watch_that_is_closed_with_410_loses_what_it_had_not_told() {
        let (mode, mut watch) = watch();
        mode.send_modify(|mode| mode.frozen = true);
        assert!(watch.next().now_or_never().is_none());
        cut(&mode, Cut::Gone);
        assert!(next(&mut watch).await.contains("\"code\":410"));
        assert!(watch.next().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_breaks_in_the_middle_of_an_event_or_between_two() {
        let (mode, mut broken) = watch();
        cut(&mode, Cut::InEvent);
        assert!(!next(&mut broken).await.ends_with('\n'));
        assert!(broken.next().await.unwrap().is_err());
        let (mode, mut ended) = watch();
        cut(&mode, Cut::End);
        assert!(ended.next().await.is_none());
    }

    #[tokio::test]
    async fn a_watch_tells_everything_once_more_and_goes_on() {
        let (mode, mut watch) = watch();
        assert_eq!(next(&mut watch).await, "first\n");
        cut(&mode, Cut::Again);
        assert_eq!(next(&mut watch).await, "first\n");
        assert_eq!(next(&mut watch).await, "second\n");
    }
}
