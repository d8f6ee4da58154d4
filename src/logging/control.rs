//! What a node's administrators may see and change of the log.

use std::fmt;
use std::sync::Arc;

use loglog_actors::admin::sources::LogControl;

use super::levels::{LevelHandle, LevelSpec};
use super::queue::Queue;

/// Handed to the node.
pub(super) struct Control {
    pub(super) level: LevelHandle,
    pub(super) queue: Arc<Queue>,
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Control").field(&self.level.get()).finish()
    }
}

impl LogControl for Control {
    fn level(&self) -> String {
        self.level.get().to_string()
    }

    fn set_level(&self, text: &str) -> Result<(), String> {
        let spec: LevelSpec = text.parse().map_err(|error: super::LevelError| error.to_string())?;
        self.level.set(spec);
        Ok(())
    }

    fn dropped(&self) -> u64 {
        self.queue.dropped()
    }
}
