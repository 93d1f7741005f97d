//! A small HTTP server that says who it is, and a client to ask it. The server takes one request for each connection,
//! the client also several.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

/// Longest request head that is read, and longest wait for it.
const MAX_HEAD_BYTES: u64 = 16 * 1024;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// A client may take its time to read: tests begin transfers, do something, and read on.
const READER_TIMEOUT: Duration = Duration::from_secs(300);
/// Most bytes that `/bytes/N` gives.
const MAX_BODY_BYTES: usize = 1 << 30;

/// Answers forever what comes in on `listener`, a thread for each connection.
///
/// Any path gives the line `NAME answered VIRTUAL-ADDRESS:PORT for CLIENT-ADDRESS:PORT`; `/bytes/N` gives N bytes of
/// [`pattern`]. What is put to it must be of that pattern too: `NAME received N bytes`.
pub fn serve(listener: &TcpListener, name: &str) {
    for connection in listener.incoming() {
        match connection {
            Ok(stream) => {
                let name = name.to_owned();
                thread::spawn(move || {
                    // A client that goes away in the middle is its own business.
                    let _ = answer(stream, &name);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: accepting again at once would only spin.
                eprintln!("accepting a connection: {error}");
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// [`serve`] in a thread that lasts as long as the program. The port is open when this returns.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve_in_background(listen: SocketAddr, name: &str) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listening on {listen}"))?;
    let name = name.to_owned();
    thread::spawn(move || serve(&listener, &name));
    Ok(())
}

/// Byte `position` of every body that `/bytes/N` gives: a period that is no power of two shows shifted pieces.
#[must_use]
pub fn pattern(position: usize) -> u8 {
    // The remainder is below 251.
    (position % 251) as u8
}

fn answer(stream: TcpStream, name: &str) -> Result<()> {
    stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    stream.set_write_timeout(Some(READER_TIMEOUT))?;
    let mut reader = BufReader::new((&stream).take(MAX_HEAD_BYTES));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let length = read_headers(&mut reader)?;
    let mut words = request.split_whitespace();
    let (status, body) = match (words.next(), words.next(), length) {
        (Some("GET"), Some(path), _) => body(path, name, &stream)?,
        (Some("PUT"), _, Some(length)) if length <= MAX_BODY_BYTES => {
            reader.get_mut().set_limit(length as u64);
            receive(&mut reader, length, name)?
        }
        _ => (
            "400 Bad Request",
            b"only GET and PUT are understood here\n".to_vec(),
        ),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = &stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)?;
    Ok(())
}

fn body(path: &str, name: &str, stream: &TcpStream) -> Result<(&'static str, Vec<u8>)> {
    let Some(number) = path.strip_prefix("/bytes/") else {
        let text = format!(
            "{name} answered {} for {}\n",
            plain(stream.local_addr()?),
            plain(stream.peer_addr()?)
        );
        return Ok(("200 OK", text.into_bytes()));
    };
    Ok(match number.parse() {
        Ok(count) if count <= MAX_BODY_BYTES => ("200 OK", (0..count).map(pattern).collect()),
        _ => (
            "400 Bad Request",
            format!("/bytes/N: N is 0 to {MAX_BODY_BYTES}\n").into_bytes(),
        ),
    })
}

fn receive(reader: &mut impl Read, length: usize, name: &str) -> Result<(&'static str, Vec<u8>)> {
    let mut piece = vec![0; 64 * 1024];
    let mut at = 0;
    while at < length {
        let most = piece.len().min(length - at);
        let count = reader.read(&mut piece[..most])?;
        ensure!(count > 0, "the body ended after {at} of {length} bytes");
        if let Some(wrong) = wrong_byte(&piece[..count], at) {
            let text = format!("byte {wrong} of {length} is not the one that was to come\n");
            return Ok(("400 Bad Request", text.into_bytes()));
        }
        at += count;
    }
    Ok((
        "200 OK",
        format!("{name} received {length} bytes\n").into_bytes(),
    ))
}

/// Position of the first byte that is not [`pattern`]'s, of a piece that begins at `start`.
#[must_use]
pub fn wrong_byte(piece: &[u8], start: usize) -> Option<usize> {
    let mut positions = start..;
    piece
        .iter()
        .zip(&mut positions)
        .find(|&(&byte, at)| byte != pattern(at))
        .map(|(_, at)| at)
}

/// An IPv4 client of a socket that takes both families shows as `::ffff:…`: said the way people write it.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// All of the body.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text, without the last line's end.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }

    /// The first word of the text: who answered.
    #[must_use]
    pub fn who(&self) -> String {
        self.text()
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Asks for `path` and reads the whole answer. `timeout`: for connecting, and for every pause in the answer.
///
/// # Errors
/// No connection, no whole answer, or none that is HTTP.
pub fn get(server: SocketAddr, path: &str, timeout: Duration) -> Result<Response> {
    Connection::open(server, timeout)?.get_last(path)
}

/// Puts `length` bytes of [`pattern`] to a server. `timeout`: for connecting, and for every pause.
///
/// # Errors
/// As [`get`]'s.
pub fn put(server: SocketAddr, path: &str, length: usize, timeout: Duration) -> Result<Response> {
    let mut connection = Connection::open(server, timeout)?;
    let headers = format!("Connection: close\r\nContent-Length: {length}\r\n");
    connection.request("PUT", path, &headers)?;
    let body: Vec<u8> = (0..length).map(pattern).collect();
    connection
        .reader
        .get_mut()
        .write_all(&body)
        .with_context(|| format!("sending {length} bytes to {server}"))?;
    connection.response(path)
}

/// A connection for several requests.
#[derive(Debug)]
pub struct Connection {
    server: SocketAddr,
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects. `timeout`: for this, and for every pause in an answer.
    ///
    /// # Errors
    /// No connection.
    pub fn open(server: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&server, timeout)
            .with_context(|| format!("connecting to {server}"))?;
        Self::over(stream, server, timeout)
    }

    /// The same from a port of one's choice.
    ///
    /// # Errors
    /// As [`Self::open`]'s.
    pub fn open_from(port: u16, server: SocketAddr, timeout: Duration) -> Result<Self> {
        let any = match server {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        Self::open_at(SocketAddr::new(any, port), server, timeout)
    }

    /// The same from an address and a port of one's choice, 0 for any.
    ///
    /// # Errors
    /// As [`Self::open`]'s.
    pub fn open_at(from: SocketAddr, server: SocketAddr, timeout: Duration) -> Result<Self> {
        let family = if from.is_ipv4() {
            AddressFamily::Inet
        } else {
            AddressFamily::Inet6
        };
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))
            .with_context(|| format!("taking {from}"))?;
        let stream = TcpStream::from(socket);
        // Of `connect` too (socket(7)).
        stream.set_write_timeout(Some(timeout))?;
        connect(stream.as_raw_fd(), &SockaddrStorage::from(server))
            .with_context(|| format!("connecting to {server} from {from}"))?;
        Self::over(stream, server, timeout)
    }

    fn over(stream: TcpStream, server: SocketAddr, timeout: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            server,
            reader: BufReader::new(stream),
        })
    }

    /// Asks for `path` and reads the whole answer; the connection stays.
    ///
    /// # Errors
    /// No whole answer, or none that is HTTP.
    pub fn get(&mut self, path: &str) -> Result<Response> {
        self.request("GET", path, "")?;
        self.response(path)
    }

    /// The same, and no other request follows.
    ///
    /// # Errors
    /// As [`Self::get`]'s.
    pub fn get_last(mut self, path: &str) -> Result<Response> {
        self.request("GET", path, "Connection: close\r\n")?;
        self.response(path)
    }

    /// Asks for `path` and gives the answer's body to be read bit by bit.
    ///
    /// # Errors
    /// No answer, or one without a length.
    pub fn transfer(mut self, path: &str) -> Result<Transfer> {
        self.request("GET", path, "Connection: close\r\n")?;
        let (status, length) = read_head(&mut self.reader)?;
        ensure!(status == 200, "{} gave status {status}", self.server);
        Ok(Transfer {
            connection: self,
            at: 0,
            length: length.context("an answer without a length")?,
        })
    }

    fn request(&mut self, method: &str, path: &str, headers: &str) -> Result<()> {
        let server = self.server;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\n{headers}\r\n");
        self.reader
            .get_mut()
            .write_all(request.as_bytes())
            .with_context(|| format!("asking {server} for {path}"))
    }

    fn response(&mut self, path: &str) -> Result<Response> {
        read_response(&mut self.reader)
            .with_context(|| format!("reading the answer of {} to {path}", self.server))
    }
}

/// A body of [`pattern`] on its way. Its reader sets the pace: the server waits when nobody reads.
#[derive(Debug)]
pub struct Transfer {
    connection: Connection,
    at: usize,
    length: usize,
}

impl Transfer {
    /// The client's end.
    ///
    /// # Errors
    /// The kernel does not say.
    pub fn client(&self) -> Result<SocketAddr> {
        Ok(self.connection.reader.get_ref().local_addr()?)
    }

    /// Reads on.
    ///
    /// # Errors
    /// The body ends before, nothing comes, or it is not the pattern.
    pub fn read(&mut self, bytes: usize) -> Result<()> {
        let (at, length) = (self.at, self.length);
        let mut piece = vec![0; bytes];
        self.connection
            .reader
            .read_exact(&mut piece)
            .with_context(|| format!("reading {bytes} bytes on after {at} of {length}"))?;
        if let Some(wrong) = wrong_byte(&piece, at) {
            bail!("byte {wrong} of {length} is not the one that was to come");
        }
        self.at += bytes;
        Ok(())
    }

    /// Reads all that is left, to the connection's end.
    ///
    /// # Errors
    /// As [`Transfer::read`]'s, or there is more than was announced.
    pub fn finish(mut self) -> Result<()> {
        self.read(self.length - self.at)?;
        let more = self.connection.reader.read(&mut [0])?;
        ensure!(more == 0, "more than the {} bytes announced", self.length);
        Ok(())
    }
}

/// Reads an answer whose length is given by `Content-Length` or by the connection's end.
///
/// # Errors
/// It ends early or is not HTTP.
pub fn read_response(reader: &mut impl BufRead) -> Result<Response> {
    let (status, length) = read_head(reader)?;
    let mut body = Vec::new();
    match length {
        Some(length) => {
            reader.take(length as u64).read_to_end(&mut body)?;
            if body.len() != length {
                bail!("the body ended after {} of {length} bytes", body.len());
            }
        }
        None => {
            reader.read_to_end(&mut body)?;
        }
    }
    Ok(Response { status, body })
}

/// Reads an answer up to its body: status, and length if it is given.
fn read_head(reader: &mut impl BufRead) -> Result<(u16, Option<usize>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1)?.trim().parse().ok())
        .with_context(|| format!("this is not a status line: {line:?}"))?;
    Ok((status, read_headers(reader)?))
}

/// Reads headers to their end: the length that they give.
fn read_headers(reader: &mut impl BufRead) -> Result<Option<usize>> {
    let mut length: Option<usize> = None;
    let mut line = String::new();
    loop {
        line.clear();
        ensure!(
            reader.read_line(&mut line)? > 0,
            "the connection ended within the headers"
        );
        let header = line.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = Some(
                value
                    .trim()
                    .parse()
                    .with_context(|| format!("in {header:?}"))?,
            );
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn server() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener, "s7"));
        address
    }

    #[test]
    fn the_server_says_who_it_is_and_whom_it_saw() {
        let address = server();
        let response = get(address, "/", TIMEOUT).unwrap();
        assert_eq!(response.status, 200);
        assert_eq!(response.who(), "s7");
        assert!(
            response
                .text()
                .starts_with(&format!("s7 answered {address} for 127.0.0.1:"))
        );
    }

    #[test]
    fn bytes_come_whole_and_in_order() {
        let address = server();
        for count in [0, 1, 251, 1_000_000] {
            let response = get(address, &format!("/bytes/{count}"), TIMEOUT).unwrap();
            assert_eq!(response.body.len(), count);
            assert!(
                response
                    .body
                    .iter()
                    .enumerate()
                    .all(|(at, &byte)| byte == pattern(at))
            );
        }
        for wrong in ["/bytes/", "/bytes/-1", "/bytes/1073741825", "/bytes/x"] {
            assert_eq!(get(address, wrong, TIMEOUT).unwrap().status, 400, "{wrong}");
        }
    }

    #[test]
    fn what_is_put_is_checked() {
        let address = server();
        for count in [0, 1, 300_000] {
            let response = put(address, "/", count, TIMEOUT).unwrap();
            let expected = format!("s7 received {count} bytes");
            assert_eq!((response.status, response.text()), (200, expected));
        }
        let mut connection = Connection::open(address, TIMEOUT).unwrap();
        connection
            .request("PUT", "/", "Content-Length: 3\r\n")
            .unwrap();
        connection.reader.get_mut().write_all(&[0, 1, 9]).unwrap();
        let response = connection.response("/").unwrap();
        assert_eq!(response.status, 400);
        assert!(response.text().starts_with("byte 2 of 3"));
    }

    #[test]
    fn a_transfer_is_read_bit_by_bit() {
        let address = server();
        let begin = || {
            let connection = Connection::open(address, TIMEOUT).unwrap();
            connection.transfer("/bytes/1000").unwrap()
        };
        let mut transfer = begin();
        transfer.read(300).unwrap();
        transfer.read(1).unwrap();
        transfer.finish().unwrap();
        assert!(begin().read(1001).is_err());
    }

    #[test]
    fn broken_answers_are_errors() {
        let check = |text: &str, said: &str| {
            let error = read_response(&mut text.as_bytes()).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{text:?}: {error:#}");
        };
        check("", "not a status line");
        check("SSH-2.0\r\n", "not a status line");
        check("HTTP/1.1 x\r\n\r\n", "not a status line");
        check("HTTP/1.1 200 OK\r\n", "within the headers");
        check(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
            "after 3 of 5 bytes",
        );
        check("HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\n", "five");
        let whole = read_response(&mut "HTTP/1.0 404 No\r\n\r\nabc".as_bytes()).unwrap();
        assert_eq!((whole.status, whole.text().as_str()), (404, "abc"));
    }
}
