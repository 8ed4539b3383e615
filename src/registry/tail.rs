//! The upload of a blob that is still being written: its bytes go out in one PATCH as they come, and
//! the digest that names them follows in a PUT (distribution spec, "pushing a blob in chunks", with
//! one chunk of unknown length, as docker has always pushed).

use std::io::{self, Read};

use crate::http::{Method, Payload, Request, Response, StatusCode, Url, header};
use crate::oci::Digest;
use crate::report::Task;

use super::Error;
use super::repository::{For, Repository};
use super::upload::Counted;

impl Repository {
    /// Sends `body` to its end, then names it with what `digest` returns; `None` means that there is
    /// no blob after all. It is tried once: whoever has the whole blob by then sends that instead.
    /// After an error the registry has nothing under the digest.
    pub fn put_growing(
        &self,
        body: impl Read + Send,
        digest: impl FnOnce() -> Option<Digest>,
        task: &Task<'_>,
    ) -> Result<Option<Digest>, Error> {
        let location = self.begin()?.url;
        let result = self.send_growing(&location, body, digest, task);
        if !matches!(result, Ok(Some(_))) {
            self.cancel(&location);
        }
        result
    }

    fn send_growing(
        &self,
        location: &Url,
        body: impl Read + Send,
        digest: impl FnOnce() -> Option<Digest>,
        task: &Task<'_>,
    ) -> Result<Option<Digest>, Error> {
        let body = std::sync::Mutex::new(Some(body));
        let open = || -> io::Result<Box<dyn Read + Send + '_>> {
            let taken = body.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
            let inner = taken.ok_or(io::ErrorKind::Unsupported)?;
            Ok(Box::new(Counted { inner, task }))
        };
        let request = Request::new(Method::PATCH, location.clone())
            .once()
            .payload(Payload::Stream { size: None, open: &open })
            .header(header::CONTENT_TYPE, "application/octet-stream")?;
        let mut answer = self.client().send(&self.authorized(request)?.0)?;
        if !answer.status().is_success() {
            return Err(self.refused("take a blob in pieces", &mut answer));
        }
        let mut url = self.location(&answer)?;
        // The connection can carry the next request once this answer is read.
        Response::bytes(&mut answer, 0).ok();
        let Some(digest) = digest() else { return Ok(None) };
        url.query_pairs_mut().append_pair("digest", &digest.to_string());
        // The token may have ended while the body was on its way; what the registry has is not lost.
        let once = |request: Request<'static>| Ok(request.once());
        let mut answer = self.send(&Method::PUT, &url, &self.scopes(For::Push), once)?;
        if !matches!(answer.status(), StatusCode::CREATED | StatusCode::NO_CONTENT | StatusCode::OK)
        {
            return Err(self.refused(&format!("take the blob {digest}"), &mut answer));
        }
        self.check_name(digest, &answer)?;
        Ok(Some(digest))
    }
}
