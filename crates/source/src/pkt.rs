//! Git's pkt-line framing: four hexadecimal digits of length, then the data.

use std::io::{self, Read};

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pkt<'a> {
    /// A line or a piece of a pack, with any final line feed.
    Data(&'a [u8]),
    /// The end of a message.
    Flush,
    /// The end of a section.
    Delim,
    /// The end of a response.
    End,
}

/// Why no packet could be read.
#[derive(Debug)]
pub(crate) enum PktError {
    Io(io::Error),
    /// The stream ended inside a message.
    Truncated,
    /// These four bytes are no length.
    Length([u8; 4]),
    /// More bytes came than the reader takes.
    Limit,
}

/// Reads packets, up to a number of bytes in all.
pub(crate) struct PktReader<R> {
    from: R,
    left: u64,
    buffer: Vec<u8>,
}

impl<R: Read> PktReader<R> {
    pub(crate) fn new(from: R, limit: u64) -> Self {
        Self { from, left: limit, buffer: Vec::new() }
    }

    pub(crate) fn next(&mut self) -> Result<Pkt<'_>, PktError> {
        let mut head = [0; 4];
        self.fill(&mut head)?;
        let length = std::str::from_utf8(&head)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|text| usize::from_str_radix(text, 16).ok())
            .ok_or(PktError::Length(head))?;
        match length {
            0 => Ok(Pkt::Flush),
            1 => Ok(Pkt::Delim),
            2 => Ok(Pkt::End),
            3 => Err(PktError::Length(head)),
            _ => {
                let mut buffer = std::mem::take(&mut self.buffer);
                buffer.resize(length - 4, 0);
                let filled = self.fill(&mut buffer);
                self.buffer = buffer;
                filled?;
                Ok(Pkt::Data(&self.buffer))
            }
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), PktError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(PktError::Limit)?;
        self.from.read_exact(bytes).map_err(|e| match e.kind() {
            // A whole answer that ends too early; a broken connection wraps an error of its own.
            io::ErrorKind::UnexpectedEof if e.get_ref().is_none() => PktError::Truncated,
            _ => PktError::Io(e),
        })
    }
}

/// Appends a line.
pub(crate) fn line(to: &mut Vec<u8>, text: &str) {
    to.extend_from_slice(format!("{:04x}{text}\n", text.len() + 5).as_bytes());
}

/// Appends the end of a message.
pub(crate) fn flush(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0000");
}

/// Appends the end of a section.
pub(crate) fn delim(to: &mut Vec<u8>) {
    to.extend_from_slice(b"0001");
}

/// A line as text, without its line feed.
pub(crate) fn text(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    text.strip_suffix('\n').unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_read_back() {
        let mut bytes = Vec::new();
        line(&mut bytes, "hello");
        delim(&mut bytes);
        bytes.extend_from_slice(b"0004");
        flush(&mut bytes);
        bytes.extend_from_slice(b"0002");
        let mut reader = PktReader::new(&bytes[..], 1000);
        assert_eq!(reader.next().unwrap(), Pkt::Data(b"hello\n"));
        assert_eq!(reader.next().unwrap(), Pkt::Delim);
        assert_eq!(reader.next().unwrap(), Pkt::Data(b""));
        assert_eq!(reader.next().unwrap(), Pkt::Flush);
        assert_eq!(reader.next().unwrap(), Pkt::End);
        assert!(matches!(reader.next(), Err(PktError::Truncated)));
    }

    #[test]
    fn garbage_is_an_error() {
        let first = |bytes: &[u8], limit| PktReader::new(bytes, limit).next().map(|_| ());
        assert!(matches!(first(b"", 99), Err(PktError::Truncated)));
        assert!(matches!(first(b"00", 99), Err(PktError::Truncated)));
        assert!(matches!(first(b"0009abc", 99), Err(PktError::Truncated)));
        for bad in [b"0003", b"<htm", b"+00a", b" 00a", b"\xff\xff\xff\xff"] {
            assert!(matches!(first(bad, 99), Err(PktError::Length(_))));
        }
        assert!(matches!(first(b"0009hello", 8), Err(PktError::Limit)));
        assert!(first(b"0009hello", 9).is_ok());
    }
}
