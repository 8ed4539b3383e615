//! A wire to a registry that counts what is sent to it, and is no faster than it is told to be.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The wire. Its threads end with the test's process.
pub(crate) struct Counter {
    port: u16,
    sent: Arc<AtomicU64>,
}

impl Counter {
    /// Lays a wire to `host:port` on which each piece of 16 KiB takes so long.
    pub(crate) fn to(server: &str, each: Duration) -> Counter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(AtomicU64::new(0));
        let (server, counted) = (server.to_owned(), Arc::clone(&sent));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (mut back, mut answers) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let counted = Arc::clone(&counted);
                thread::spawn(move || pass(client, server, each, &counted));
                thread::spawn(move || {
                    std::io::copy(&mut answers, &mut back).ok();
                    back.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Counter { port, sent }
    }

    /// Returns `127.0.0.1:PORT` of this end.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns how many bytes were sent to the registry, requests' headers among them.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::SeqCst)
    }
}

fn pass(mut client: TcpStream, mut server: TcpStream, each: Duration, sent: &AtomicU64) {
    let mut buffer = [0; 16 << 10];
    while let Ok(read) = client.read(&mut buffer) {
        sent.fetch_add(read as u64, Ordering::SeqCst);
        thread::sleep(each * u32::try_from(read).unwrap() / (16 << 10));
        if read == 0 || server.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    client.shutdown(Shutdown::Both).ok();
    server.shutdown(Shutdown::Both).ok();
}
