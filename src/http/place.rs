//! Where answers are made. The future of one has some kilobytes, and most are done at once; so there is no place for one in each connection, of which
//! many would be in no cache of the processor, but the place of the answer before is used again.

use std::any::Any;
use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

/// How many places are kept.
const MOST_SPARE: usize = 4;

thread_local! {
    /// Those of one kind of future.
    static SPARE: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

type Place<F> = Pin<Box<Option<F>>>;

/// Does something with the places for `F`, unless the thread ends.
fn with_spare<F: 'static, T>(change: impl FnOnce(&mut Vec<Place<F>>) -> T) -> Option<T> {
    let changed = SPARE.try_with(|spare| {
        let mut spare = spare.borrow_mut();
        let places = spare.get_or_insert_with(|| Box::new(Vec::<Place<F>>::new()));
        places.downcast_mut().map(change)
    });
    changed.ok().flatten()
}

/// A future in such a place.
pub(super) struct Placed<F: Future + 'static>(Option<Place<F>>);

impl<F: Future + 'static> Placed<F> {
    pub(super) fn new(future: F) -> Self {
        let spare = with_spare(Vec::pop).flatten();
        let mut place = spare.unwrap_or_else(|| Box::pin(None));
        place.set(Some(future));
        Self(Some(place))
    }
}

impl<F: Future + 'static> Future for Placed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let place = self.0.as_mut().expect("it has a place until it is dropped");
        let future = place.as_mut().as_pin_mut().expect("and is there");
        future.poll(context)
    }
}

impl<F: Future + 'static> Drop for Placed<F> {
    fn drop(&mut self) {
        let Some(mut place) = self.0.take() else {
            return;
        };
        place.set(None);
        with_spare(|spare| {
            if spare.len() < MOST_SPARE {
                spare.push(place);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_and_few_are_kept() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let make = |number: usize| async move {
            tokio::task::yield_now().await;
            number
        };
        let address = |placed: &Placed<_>| std::ptr::from_ref(&**placed.0.as_ref().unwrap()).addr();
        let many: Vec<_> = (0..10).map(|number| Placed::new(make(number))).collect();
        let places: Vec<_> = many.iter().map(address).collect();
        for (number, one) in many.into_iter().enumerate() {
            assert_eq!(runtime.block_on(one), number);
        }
        let again = Placed::new(make(7));
        assert!(places.contains(&address(&again)));
        assert_eq!(kept(&again), Some(MOST_SPARE - 1));
        assert_eq!(runtime.block_on(again), 7);
    }

    /// How many places there are for such a future.
    fn kept<F: Future + 'static>(_: &Placed<F>) -> Option<usize> {
        with_spare(|spare: &mut Vec<Place<F>>| spare.len())
    }
}
