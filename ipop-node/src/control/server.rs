//! Listens on the control socket and hands what is asked to the node.

use std::fs::{File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use super::{Answer, LONGEST_REQUEST, Request};

/// How many questions wait for the node.
const QUEUE: usize = 16;
/// A client that says nothing for this long is hung up on.
const IDLE: Duration = Duration::from_secs(30);
/// The socket's permissions: the owner and the group may ask.
const MODE: u32 = 0o660;

/// A request with the way back for its answer.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Answer>,
}

/// The control socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another node has it.
    #[error("another ipop-node already runs on the control socket {}", .0.display())]
    InUse(PathBuf),
    /// A file cannot be made.
    #[error("cannot listen on the control socket {}", path.display())]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The listening socket; removed when dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    questions: mpsc::Receiver<Question>,
    /// Locked for as long as the process lives: who has it has the socket.
    _lock: File,
}

impl Server {
    /// Listens on `path`. A socket that a killed node left there is replaced. Needs a tokio runtime.
    pub fn start(path: &Path) -> Result<Self, ServerError> {
        let failed = |source| ServerError::Listen {
            path: path.to_owned(),
            source,
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(dir)
                .map_err(failed)?;
        }
        let lock = File::create(suffixed(path, ".lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ServerError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let listener = bind(path).map_err(failed)?;
        let (asker, questions) = mpsc::channel(QUEUE);
        tokio::spawn(accept(listener, asker));
        Ok(Self {
            path: path.to_owned(),
            questions,
            _lock: lock,
        })
    }

    /// The next question; none when the accepting task has died. May be cancelled.
    pub async fn next(&mut self) -> Option<Question> {
        self.questions.recv().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "control socket not removed");
        }
    }
}

/// Binds beside `path` and moves there, so that the socket never has other permissions.
fn bind(path: &Path) -> io::Result<UnixListener> {
    let new = suffixed(path, ".new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&new)?;
    std::fs::set_permissions(&new, Permissions::from_mode(MODE))?;
    std::fs::rename(&new, path)?;
    Ok(listener)
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

async fn accept(listener: UnixListener, asker: mpsc::Sender<Question>) {
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, asker.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "control connection not accepted");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            () = asker.closed() => return,
        }
    }
}

async fn serve(stream: UnixStream, asker: mpsc::Sender<Question>) {
    if let Err(error) = converse(stream, &asker).await {
        tracing::debug!(%error, "control connection broken");
    }
}

async fn converse(mut stream: UnixStream, asker: &mpsc::Sender<Question>) -> io::Result<()> {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut limited = (&mut reader).take(LONGEST_REQUEST);
        match tokio::time::timeout(IDLE, limited.read_until(b'\n', &mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
        let complete = line.ends_with(b"\n");
        let answer = match serde_json::from_slice(&line) {
            Ok(request) => ask(request, asker).await,
            Err(error) => Answer::Error {
                message: error.to_string(),
            },
        };
        let mut text = serde_json::to_string(&answer)?;
        text.push('\n');
        writer.write_all(text.as_bytes()).await?;
        if !complete {
            return Ok(());
        }
    }
}

async fn ask(request: Request, asker: &mpsc::Sender<Question>) -> Answer {
    let (reply, answer) = oneshot::channel();
    let leaving = || Answer::Error {
        message: "the node is leaving".to_owned(),
    };
    if asker.send(Question { request, reply }).await.is_err() {
        return leaving();
    }
    answer.await.unwrap_or_else(|_| leaving())
}

#[cfg(test)]
mod tests {
    use super::super::{ClientError, ask};
    use super::*;

    fn ask_apart(
        path: &Path,
        request: Request,
    ) -> tokio::task::JoinHandle<Result<Answer, ClientError>> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || ask(&path, &request))
    }

    #[tokio::test]
    async fn a_question_is_answered() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("sub/control.sock");
        let mut server = Server::start(&path).expect("listening");
        let mode = std::fs::metadata(&path)
            .expect("socket")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, MODE);
        let client = ask_apart(&path, Request::Status);
        let question = server.next().await.expect("a question");
        assert_eq!(question.request, Request::Status);
        question.reply.send(Answer::Done).expect("waited for");
        assert_eq!(client.await.expect("ends").expect("answered"), Answer::Done);
        drop(server);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_node_is_refused_and_a_stale_socket_replaced() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("control.sock");
        // What a killed node leaves behind: a socket that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        let server = Server::start(&path).expect("replaced");
        assert!(matches!(Server::start(&path), Err(ServerError::InUse(_))));
        drop(server);
        Server::start(&path).expect("free again");
    }

    #[tokio::test]
    async fn nonsense_is_told_to_be_nonsense() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("control.sock");
        let _server = Server::start(&path).expect("listening");
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        stream
            .write_all(b"{\"request\":\"reboot\"}\n")
            .await
            .expect("sent");
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .await
            .expect("answered");
        assert!(
            line.starts_with(r#"{"answer":"error","message":"unknown variant `reboot`"#),
            "{line}"
        );
    }
}
