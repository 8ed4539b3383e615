//! How long may be waited in all, so that many waits which are short do not make a night.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A bound on waiting. Threads that wait at the same time are counted once; what is waited within a
/// part counts for the whole as well.
#[derive(Debug)]
pub struct Patience {
    most: Duration,
    whole: Option<Arc<Patience>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spent: Duration,
    waiting: u32,
    /// Since when somebody waits, if anybody does.
    since: Option<Instant>,
}

impl State {
    fn so_far(&self) -> Duration {
        self.spent + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Patience {
    /// Bounds waiting by `most` in all.
    pub fn new(most: Duration) -> Arc<Patience> {
        Arc::new(Patience { most, whole: None, state: Mutex::default() })
    }

    /// Bounds a part of it by `most`.
    pub fn part(self: &Arc<Patience>, most: Duration) -> Arc<Patience> {
        Arc::new(Patience { most, whole: Some(Arc::clone(self)), state: Mutex::default() })
    }

    /// Waits, unless that would be too long: then it returns at once with the bound.
    pub(super) fn wait(&self, wait: Duration) -> Result<(), Duration> {
        self.begin(wait)?;
        let waited = if let Some(whole) = &self.whole {
            whole.wait(wait)
        } else {
            std::thread::sleep(wait);
            Ok(())
        };
        self.end();
        waited
    }

    fn begin(&self, wait: Duration) -> Result<(), Duration> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.so_far() + wait > self.most {
            return Err(self.most);
        }
        state.since.get_or_insert_with(Instant::now);
        state.waiting += 1;
        Ok(())
    }

    fn end(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        if state.waiting == 0 {
            state.spent = state.so_far();
            state.since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_add_up_and_those_at_one_time_count_once() {
        let ms = Duration::from_millis;
        let whole = Patience::new(ms(10_000));
        let together = std::sync::Barrier::new(20);
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| {
                    together.wait();
                    whole.wait(ms(300)).unwrap();
                });
            }
        });
        // One after the other they would have been 6 s.
        assert_eq!(whole.begin(ms(5_000)), Ok(()));

        let whole = Patience::new(ms(100));
        let part = whole.part(ms(30));
        assert_eq!(part.wait(ms(40)), Err(ms(30)));
        assert_eq!(part.wait(ms(20)), Ok(()));
        assert_eq!(part.wait(ms(20)), Err(ms(30)), "the part is used up");
        assert_eq!(whole.part(ms(900)).wait(ms(90)), Err(ms(100)), "so is the whole");
    }
}
