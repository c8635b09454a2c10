//! Cuts a stream of bytes into the messages of PostgreSQL's protocol, however the network cut it.
//! Used by `wire`, which counts them. Must keep no more of a message than its beginning.

/// As much of a message as anybody looks at.
const KEPT: usize = 240;

pub struct Frames {
    /// The first message of a client has no type.
    untyped: bool,
    head: Vec<u8>,
    body: Vec<u8>,
    /// The whole body's length, and what of it has not come yet.
    length: usize,
    left: usize,
}

impl Frames {
    pub fn of_client() -> Self {
        Self { untyped: true, ..Self::of_server() }
    }

    pub fn of_server() -> Self {
        Self { untyped: false, head: Vec::new(), body: Vec::new(), length: 0, left: 0 }
    }

    /// Shows each message that is complete with these bytes: its type, its beginning, its length.
    pub fn feed(&mut self, mut bytes: &[u8], mut show: impl FnMut(u8, &[u8], usize)) {
        while !bytes.is_empty() {
            if self.left == 0 {
                self.head.push(bytes[0]);
                bytes = &bytes[1..];
                if !self.begin() {
                    continue;
                }
            }
            let part = self.left.min(bytes.len());
            let kept = part.min(KEPT - self.body.len());
            self.body.extend_from_slice(&bytes[..kept]);
            self.left -= part;
            bytes = &bytes[part..];
            if self.left == 0 {
                let kind = if self.untyped { 0 } else { self.head[0] };
                show(kind, &self.body, self.length);
                self.untyped = false;
                self.head.clear();
                self.body.clear();
            }
        }
    }

    /// Whether the head is complete; then the body begins.
    fn begin(&mut self) -> bool {
        let typed = usize::from(!self.untyped);
        if self.head.len() < typed + 4 {
            return false;
        }
        let length: [u8; 4] = self.head[typed..].try_into().unwrap();
        self.length = u32::from_be_bytes(length) as usize - 4;
        self.left = self.length;
        true
    }
}

#[test]
fn messages_are_found_however_the_network_cuts_them() {
    let stream = [
        &[0, 0, 0, 8, 1, 2, 3, 4][..],
        &[b'Q', 0, 0, 0, 6, b'x', 0],
        &[b'S', 0, 0, 0, 4],
        &[b'd', 0, 0, 1, 4],
        &[7; 256],
        &[b'X', 0, 0, 0, 4],
    ]
    .concat();
    for size in [1, 2, 3, 7, 1000] {
        let (mut frames, mut seen) = (Frames::of_client(), Vec::new());
        for piece in stream.chunks(size) {
            frames.feed(piece, |kind, body, length| seen.push((kind, body.len(), length)));
        }
        assert_eq!(seen, [(0, 4, 4), (b'Q', 2, 2), (b'S', 0, 0), (b'd', 240, 256), (b'X', 0, 0)], "{size}");
    }
}
