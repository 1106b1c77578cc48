//! A question to whoever is at the terminal, before what cannot be undone.

use std::io::{IsTerminal as _, Write as _};

use crate::error::{CliError, ExitCode};

/// What is asked, and what is said without a yes.
pub(super) struct Confirm {
    /// To be answered with yes or no.
    pub question: String,
    /// What is at stake, for when nobody can be asked.
    pub stakes: String,
    /// How to do without the question.
    pub hint: &'static str,
    /// Of an answer that is no yes.
    pub declined: &'static str,
}

impl Confirm {
    /// Asks.
    ///
    /// # Errors
    ///
    /// When the answer is no yes, or nobody can be asked.
    pub fn ask(self) -> Result<(), CliError> {
        if !std::io::stdin().is_terminal() {
            let message = format!("{}, and nobody can be asked", self.stakes);
            return Err(CliError::new(ExitCode::Usage, message).hint(self.hint));
        }
        eprint!("{} [y/N] ", self.question);
        let mut answer = String::new();
        let read = std::io::stderr()
            .flush()
            .and_then(|()| std::io::stdin().read_line(&mut answer));
        read.map_err(|e| CliError::new(ExitCode::Internal, "cannot ask").caused_by(e))?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(CliError::new(ExitCode::Interrupted, self.declined)),
        }
    }
}
