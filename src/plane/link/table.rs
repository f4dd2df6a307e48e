use std::collections::{BTreeMap, VecDeque};

/// Streams by number.
///
/// Numbers of one parity come in rising order and mostly go soon: they lie in a row, found by subtraction. What
/// stays long, and what has the other parity, lies in a tree, so that the row stays short.
#[derive(Debug)]
pub(super) struct Table<T> {
    /// The parity of the numbers in the row.
    parity: u64,
    /// The number at the front of the row, which is occupied unless the row is empty.
    first: u64,
    row: VecDeque<Option<T>>,
    tree: BTreeMap<u64, T>,
    /// How many places of the row are occupied.
    occupied: usize,
}

/// The row may always have so many places.
const ROW_MIN: usize = 1024;

impl<T> Table<T> {
    pub(super) fn new(parity: u64) -> Self {
        Self { parity, first: parity, row: VecDeque::new(), tree: BTreeMap::new(), occupied: 0 }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.occupied + self.tree.len()
    }

    /// Adds a stream, whose number is new. Most are larger than those of their parity before.
    pub(super) fn insert(&mut self, number: u64, value: T) {
        // The front only moves on, so that the numbers before it are those that lie in the tree.
        if number & 1 != self.parity || number < self.first {
            self.tree.insert(number, value);
            return;
        }
        if self.row.is_empty() {
            self.first = number;
        }
        let place = (number - self.first) / 2;
        if place > (self.row.len() + ROW_MIN) as u64 {
            self.shelve(usize::MAX);
            self.first = number;
        }
        let place = ((number - self.first) / 2) as usize;
        if place >= self.row.len() {
            self.row.resize_with(place + 1, || None);
        }
        let before = self.row[place].replace(value);
        debug_assert!(before.is_none(), "the number is new");
        self.occupied += 1;
        if self.row.len() > ROW_MIN && self.row.len() > 4 * self.occupied {
            self.shelve(1);
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.place(number) {
            Some(place) => self.row.get_mut(place)?.as_mut(),
            None if self.tree.is_empty() => None,
            None => self.tree.get_mut(&number),
        }
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        match self.place(number) {
            Some(place) => self.row.get(place).is_some_and(Option::is_some),
            None => self.tree.contains_key(&number),
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let Some(place) = self.place(number) else { return self.tree.remove(&number) };
        let value = self.row.get_mut(place)?.take()?;
        self.occupied -= 1;
        self.trim();
        Some(value)
    }

    /// All streams, in no order.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.tree.values_mut().chain(self.row.iter_mut().flatten())
    }

    /// The numbers of all streams, those of the tree first.
    pub(super) fn numbers(&self) -> Vec<u64> {
        let row = self.row.iter().enumerate().filter(|(_, value)| value.is_some());
        let row = row.map(|(place, _)| self.first + 2 * place as u64);
        self.tree.keys().copied().chain(row).collect()
    }

    /// Where in the row a number would be; none if it lies before it, or has the other parity.
    fn place(&self, number: u64) -> Option<usize> {
        if number & 1 != self.parity || number < self.first {
            return None;
        }
        usize::try_from((number - self.first) / 2).ok()
    }

    /// Moves streams at the front of the row to the tree.
    fn shelve(&mut self, mut streams: usize) {
        while streams > 0 {
            let Some(front) = self.row.pop_front() else { break };
            if let Some(value) = front {
                self.tree.insert(self.first, value);
                self.occupied -= 1;
                streams -= 1;
            }
            self.first += 2;
        }
        self.trim();
    }

    fn trim(&mut self) {
        while self.row.front().is_some_and(Option::is_none) {
            self.row.pop_front();
            self.first += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever comes and goes, in both parities, with gaps and with streams that stay, the table holds what
        /// a plain map holds.
        #[test]
        fn a_table_holds_what_a_map_holds(parity in 0..2_u64, steps in prop::collection::vec((0..5_u8, 0..3000_u64), 1..300)) {
            let (mut table, mut map) = (Table::new(parity), BTreeMap::new());
            let mut next = [1, 2];
            for (what, by) in steps {
                match what {
                    0 | 1 => {
                        let gap = if by > 2900 { by } else { by % 3 };
                        let number = next[usize::from(what)] + 2 * gap;
                        next[usize::from(what)] = number + 2;
                        table.insert(number, by);
                        map.insert(number, by);
                    }
                    // One that comes late.
                    2 if !map.contains_key(&by) && by < next[(by & 1) as usize ^ 1] => {
                        table.insert(by, by);
                        map.insert(by, by);
                    }
                    2 | 3 => {
                        let number = map.keys().nth(by as usize % (map.len() + 1)).copied().unwrap_or(by);
                        prop_assert_eq!(table.remove(number), map.remove(&number));
                    }
                    _ => prop_assert_eq!(table.get_mut(by).copied(), map.get(&by).copied()),
                }
                prop_assert_eq!(table.len(), map.len());
            }
            let mut numbers = table.numbers();
            numbers.sort_unstable();
            prop_assert!(numbers.iter().all(|number| table.contains(*number)));
            prop_assert_eq!(numbers, map.into_keys().collect::<Vec<_>>());
        }
    }

    /// One stream that stays does not make the row grow with all that come after it.
    #[test]
    fn a_stream_that_stays_does_not_hold_the_row() {
        let mut table = Table::new(1);
        table.insert(1, 0);
        for number in 1..1_000_000 {
            table.insert(2 * number + 1, number);
            table.remove(2 * number + 1);
        }
        assert!(table.row.len() <= ROW_MIN + 1, "{}", table.row.len());
        assert_eq!((table.len(), table.get_mut(1)), (1, Some(&mut 0)));
    }
}
