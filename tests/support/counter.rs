//! A wire to a registry that counts what is sent to it, and is no faster than it is told to be.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::cli::wait_for;

/// The wire. Its threads end with the test's process.
pub(crate) struct Counter {
    port: u16,
    sent: Arc<AtomicU64>,
    open: Arc<AtomicU64>,
}

impl Counter {
    /// Lays a wire to `host:port` on which each piece of 16 KiB takes so long.
    pub(crate) fn to(server: &str, each: Duration) -> Counter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sent = Arc::new(AtomicU64::new(0));
        let open = Arc::new(AtomicU64::new(0));
        let (server, counted, running) = (server.to_owned(), Arc::clone(&sent), Arc::clone(&open));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (mut back, mut answers) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (counted, running) = (Arc::clone(&counted), Arc::clone(&running));
                running.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    pass(client, server, each, &counted);
                    running.fetch_sub(1, Ordering::SeqCst);
                });
                thread::spawn(move || {
                    std::io::copy(&mut answers, &mut back).ok();
                    back.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Counter { port, sent, open }
    }

    /// Returns `127.0.0.1:PORT` of this end.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Waits until all that was sent has reached the registry.
    pub(crate) fn drain(&self) {
        wait_for("the wire to be empty", || self.open.load(Ordering::SeqCst) == 0);
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
