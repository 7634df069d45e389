//! What the server must answer, computed from the generated traces alone.

mod answers;
mod classes;
mod filter;
mod look;

pub use self::answers::{Answers, Hit, Tags, TraceFacts, VALUE_TAGS};
pub use self::classes::{Class, LIMIT_MAX, Query, classes};
pub use self::filter::{Field, Filter, Pattern, Subject, Test};
pub use self::look::Look;
