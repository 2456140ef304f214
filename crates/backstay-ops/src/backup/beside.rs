//! Two sources one behind the other, as one.

use backstay_model::error::Fault;
use backstay_model::parts::{PartSource, Step};

pub(super) struct Beside {
    pub first: Option<Box<dyn PartSource>>,
    pub then: Box<dyn PartSource>,
}

impl PartSource for Beside {
    fn next(&mut self) -> Result<Option<Step>, Fault> {
        if let Some(first) = &mut self.first {
            match first.next()? {
                Some(step) => return Ok(Some(step)),
                None => self.first = None,
            }
        }
        self.then.next()
    }
}
