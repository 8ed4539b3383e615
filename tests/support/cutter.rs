//! A wire to a registry that breaks or hangs: what goes to the server is passed on, up to a number of
//! bytes of the first connection that carries a certain request; or what comes back, for good.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What happens after so many bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    /// The connection ends.
    Cut,
    /// Nothing is passed on any more.
    Hang,
}

/// The wire. Its thread ends with the test's process.
pub(crate) struct Cutter {
    port: u16,
    happened: Arc<AtomicBool>,
}

impl Cutter {
    /// Lays a wire to `host:port` in which it happens once, after `limit` bytes of a connection that
    /// carries a request with this method.
    pub(crate) fn to(server: &str, method: &str, limit: usize, then: Then) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let happened = Arc::new(AtomicBool::new(false));
        let (server, seen) = (server.to_owned(), Arc::clone(&happened));
        let method = format!("{method} ");
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (mut back, mut answers) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (seen, method) = (Arc::clone(&seen), method.clone());
                thread::spawn(move || pass(client, server, &method, limit, then, &seen));
                thread::spawn(move || {
                    std::io::copy(&mut answers, &mut back).ok();
                    back.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Cutter { port, happened }
    }

    /// Lays a wire to `host:port` that ends for good once a connection has brought so many bytes of
    /// answers: from then on nobody is there.
    pub(crate) fn dying(server: &str, limit: usize) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let happened = Arc::new(AtomicBool::new(false));
        let (server, dead) = (server.to_owned(), Arc::clone(&happened));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if dead.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&server) else { continue };
                let (mut asks, mut asked) =
                    (client.try_clone().unwrap(), server.try_clone().unwrap());
                let dead = Arc::clone(&dead);
                thread::spawn(move || std::io::copy(&mut asks, &mut asked));
                thread::spawn(move || {
                    let (mut client, mut server) = (client, server);
                    let mut buffer = [0; 16 << 10];
                    let mut count = 0;
                    while let Ok(read @ 1..) = server.read(&mut buffer) {
                        count += read;
                        let over = count > limit || dead.load(Ordering::SeqCst);
                        if over || client.write_all(&buffer[..read]).is_err() {
                            dead.store(true, Ordering::SeqCst);
                            break;
                        }
                    }
                    client.shutdown(Shutdown::Both).ok();
                    server.shutdown(Shutdown::Both).ok();
                });
            }
        });
        Cutter { port, happened }
    }

    /// Returns `127.0.0.1:PORT` of this end.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Tells whether it has happened.
    pub(crate) fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }
}

fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    method: &str,
    limit: usize,
    then: Then,
    seen: &AtomicBool,
) {
    let mut buffer = [0; 16 << 10];
    let mut counted = None;
    while let Ok(read) = client.read(&mut buffer) {
        let bytes = &buffer[..read];
        // A request's first bytes come at once.
        if counted.is_none() && bytes.starts_with(method.as_bytes()) && !seen.load(Ordering::SeqCst)
        {
            counted = Some(0);
        }
        if let Some(count) = &mut counted {
            *count += read;
            if *count > limit {
                seen.store(true, Ordering::SeqCst);
                if let Then::Hang = then {
                    thread::sleep(Duration::from_mins(1));
                }
                break;
            }
        }
        if read == 0 || server.write_all(bytes).is_err() {
            break;
        }
    }
    client.shutdown(Shutdown::Both).ok();
    server.shutdown(Shutdown::Both).ok();
}
