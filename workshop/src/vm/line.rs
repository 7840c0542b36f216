//! What goes over the two serial lines between the launcher and init: data
//! in both directions on the first, and on the second what must get through
//! when nobody reads the data.

use std::io::{self, Read, Write};

/// The most that one piece carries.
pub const PIECE: usize = 4096;

/// What a piece of data is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// For the command's stdin; an empty one is its end.
    Input,
    /// From its stdout, or from its terminal.
    Output,
    /// From its stderr.
    Errors,
    /// The machine is up.
    Up,
    /// The command has ended, with this status.
    Ended,
    /// There was no command, for this reason.
    Failed,
}

const KINDS: [Kind; 6] = [
    Kind::Input,
    Kind::Output,
    Kind::Errors,
    Kind::Up,
    Kind::Ended,
    Kind::Failed,
];

/// Sends a piece.
pub fn send(to: &mut impl Write, kind: Kind, data: &[u8]) -> io::Result<()> {
    let length = u16::try_from(data.len()).map_err(io::Error::other)?;
    let mut piece = vec![kind as u8];
    piece.extend(length.to_le_bytes());
    piece.extend(data);
    to.write_all(&piece)
}

/// The next piece, or nothing when the line is dead.
pub fn receive(from: &mut impl Read) -> Option<(Kind, Vec<u8>)> {
    let mut head = [0; 3];
    from.read_exact(&mut head).ok()?;
    let kind = *KINDS.get(usize::from(head[0]))?;
    let mut data = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
    from.read_exact(&mut data).ok()?;
    Some((kind, data))
}

/// What the launcher tells init on the second line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// The terminal has so many lines and columns now.
    Resize(u16, u16),
    /// Nobody reads the command's stdout any more.
    CloseOutput,
    /// Nobody reads its stderr any more.
    CloseErrors,
    /// Kill the command.
    End,
}

impl Order {
    pub fn send(self, to: &mut impl Write) -> io::Result<()> {
        let (tag, one, two) = match self {
            Self::Resize(lines, columns) => (0, lines, columns),
            Self::CloseOutput => (1, 0, 0),
            Self::CloseErrors => (2, 0, 0),
            Self::End => (3, 0, 0),
        };
        let [a, b] = one.to_le_bytes();
        let [c, d] = two.to_le_bytes();
        to.write_all(&[tag, a, b, c, d])
    }

    /// The next one, or nothing when the line is dead.
    pub fn receive(from: &mut impl Read) -> Option<Self> {
        let mut bytes = [0; 5];
        from.read_exact(&mut bytes).ok()?;
        let [tag, a, b, c, d] = bytes;
        match tag {
            0 => Some(Self::Resize(
                u16::from_le_bytes([a, b]),
                u16::from_le_bytes([c, d]),
            )),
            1 => Some(Self::CloseOutput),
            2 => Some(Self::CloseErrors),
            3 => Some(Self::End),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{KINDS, Order, receive, send};

    #[test]
    fn what_is_sent_is_received() {
        let mut line = Vec::new();
        for kind in KINDS {
            send(&mut line, kind, b"\0\n\xff").expect("a vector");
        }
        let mut line = &line[..];
        for kind in KINDS {
            assert_eq!(receive(&mut line), Some((kind, b"\0\n\xff".to_vec())));
        }
        assert_eq!(receive(&mut line), None);
        let orders = [
            Order::Resize(300, 1),
            Order::CloseOutput,
            Order::CloseErrors,
            Order::End,
        ];
        let mut line = Vec::new();
        for order in orders {
            order.send(&mut line).expect("a vector");
        }
        let mut line = &line[..];
        for order in orders {
            assert_eq!(Order::receive(&mut line), Some(order));
        }
    }
}
