//! nginx before a registry. It and its files go when the value is dropped.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::cli::wait_for;
use super::{TempDir, run, temp_dir};

/// A running nginx.
pub(crate) struct Nginx {
    child: Child,
    dir: TempDir,
    port: u16,
}

impl Nginx {
    /// Starts one with these servers, one of which listens at `port`; `LOGS` in them stands for the
    /// folder of its logs.
    pub(crate) fn start(port: u16, servers: &str) -> Nginx {
        let dir = temp_dir();
        let at = dir.path().display();
        let config = format!(
            "daemon off; pid {at}/pid; error_log {at}/error;\nevents {{}}\nhttp {{\n\
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;\n\
             {}\n}}\n",
            servers.replace("LOGS", &at.to_string())
        );
        std::fs::write(dir.path().join("conf"), config).unwrap();
        let child = Command::new("nginx")
            .args(["-e", "stderr", "-c"])
            .arg(dir.path().join("conf"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stderr(Stdio::null())
            .spawn()
            .expect("the tests need the package nginx-light");
        wait_for("nginx", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Nginx { child, dir, port }
    }

    /// Returns `127.0.0.1:PORT`.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns what is in one of its logs.
    pub(crate) fn read(&self, log: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(log)).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers go with it only when it is told.
        run(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        self.child.wait().ok();
    }
}
