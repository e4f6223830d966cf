//! Reading the log of a run, while it is written and afterwards.

use std::io;
use std::path::PathBuf;

use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::RunLine;

/// The longest line that is believed: what engines cut off at 16 KiB, written as JSON.
const LONGEST: usize = 256 << 10;

/// The log of a run.
pub struct RunLog {
    path: PathBuf,
    file: Option<BufReader<File>>,
    /// A line of which the end has not been written yet.
    begun: Vec<u8>,
}

impl RunLog {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, begun: Vec::new() }
    }

    /// The next line that is there. `None`: there is none now; there may be later, while the run goes on.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<RunLine>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => match File::open(&self.path).await {
                Ok(file) => none.insert(BufReader::new(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        loop {
            file.read_until(b'\n', &mut self.begun).await?;
            if self.begun.last() != Some(&b'\n') {
                if self.begun.len() > LONGEST {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of the log does not end"));
                }
                return Ok(None);
            }
            let line = std::mem::take(&mut self.begun);
            // One that a crash cut in the middle is passed over.
            if let Ok(line) = serde_json::from_slice(&line) {
                return Ok(Some(line));
            }
        }
    }
}
