//! What readers of frames do with bytes of any kind. `fuzz/` has the same for a fuzzer that is led by coverage.

use bytes::{Bytes, BytesMut};
use coracle_sandbox::wire::{Answer, LONGEST_FRAME, Request, take_frame};

/// Bytes as they come over the socket: frames are taken off, read, written again and read again to the same value. Nothing
/// panics, and nobody reserves more than a frame may have.
pub fn stream(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    loop {
        let before = buffer.len();
        match take_frame(&mut buffer) {
            Ok(Some((kind, payload))) => {
                assert!(buffer.len() < before && payload.len() < LONGEST_FRAME as usize);
                both(kind, &payload);
            }
            Ok(None) => {
                assert_eq!(buffer.len(), before, "what is not whole stays");
                assert!(buffer.capacity() <= LONGEST_FRAME as usize + 2 * before + 64);
                return;
            }
            Err(_) => return,
        }
    }
}

/// One payload, read as what a client says and as what the daemon says.
pub fn both(kind: u8, payload: &Bytes) {
    if let Ok(request) = Request::decode(kind, payload.clone()) {
        let mut again = BytesMut::new();
        request.encode(&mut again);
        let (kind, payload) = take_frame(&mut again).expect("a frame").expect("a whole one");
        assert_eq!(Request::decode(kind, payload), Ok(request));
    }
    if let Ok(answer) = Answer::decode(kind, payload.clone()) {
        let mut again = BytesMut::new();
        answer.encode(&mut again);
        let (kind, payload) = take_frame(&mut again).expect("a frame").expect("a whole one");
        assert_eq!(Answer::decode(kind, payload), Ok(answer));
    }
}
