//! Hearing that something waits in the outbox. Nothing depends on it: what is missed is found by looking.

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use tokio_postgres::AsyncMessage;

use super::Postgres;
use crate::{Error, ErrorKind};

/// After how long the system asks whether a silent server is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

impl Postgres {
    /// Calls `heard` when it begins to listen, and at each notice; returns when the connection is over.
    pub(crate) async fn listen(&self, mut heard: impl FnMut() + Send) -> Error {
        let server = self.0.server();
        let mut config = server.address.config.clone();
        config
            .application_name("larder-listen")
            .keepalives_idle(KEEP_ALIVE);
        let connecting = config.connect(server.address.tls.clone());
        let limit = self.0.settings.connect_timeout;
        let (client, mut connection) = match self.0.clock().timeout(limit, connecting).await {
            None => return server.late(),
            Some(Err(error)) => return server.connect_error(&error),
            Some(Ok(connected)) => connected,
        };
        let text = format!("LISTEN \"{}\"", server.address.table.outbox_name());
        let mut asked = pin!(client.batch_execute(&text));
        let mut is_asked = false;
        loop {
            tokio::select! {
                message = poll_fn(|context| connection.poll_message(context)) => match message {
                    Some(Ok(AsyncMessage::Notification(_))) => heard(),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return server.tell(&error),
                    None => {
                        return server.complaint(ErrorKind::Unavailable, "closed the connection");
                    }
                },
                outcome = &mut asked, if !is_asked => match outcome {
                    Ok(()) => {
                        is_asked = true;
                        // What came while nobody listened.
                        heard();
                    }
                    Err(error) => return server.tell(&error),
                },
            }
        }
    }
}
