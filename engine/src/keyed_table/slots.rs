//! Sets of slots: which rows a batch touches, which have changed since something was stored.

/// Slots in the order in which they were put in, each once, and the place of each.
#[derive(Debug, Default)]
pub(super) struct SlotSet {
    slots: Vec<u32>,
    /// By slot: its place in `slots`, from 1; 0 if it is not in.
    places: Vec<u32>,
}

impl SlotSet {
    /// Place of `slot`, one of `count`, and whether it is new.
    pub(super) fn insert(&mut self, slot: u32, count: usize) -> (usize, bool) {
        if self.places.len() < count {
            self.places.resize(count, 0);
        }
        let place = &mut self.places[slot as usize];
        let is_new = *place == 0;
        if is_new {
            self.slots.push(slot);
            *place = slot_number(self.slots.len());
        }
        (*place as usize - 1, is_new)
    }

    /// Empties it. Cost: O(slots in it).
    pub(super) fn take(&mut self) -> Vec<u32> {
        let slots = std::mem::take(&mut self.slots);
        for slot in &slots {
            self.places[*slot as usize] = 0;
        }
        slots
    }

    pub(super) fn bytes(&self) -> usize {
        (self.slots.capacity() + self.places.capacity()) * size_of::<u32>()
    }
}

/// Slots of which something is true; a bit for each.
#[derive(Debug, Default)]
pub(super) struct Marks {
    slots: Vec<u32>,
    bits: Vec<u64>,
}

impl Marks {
    /// Marks slots of `count`.
    pub(super) fn extend(&mut self, slots: &[u32], count: usize) {
        if self.bits.len() * 64 < count {
            self.bits.resize(count.div_ceil(64), 0);
        }
        for slot in slots {
            let (word, bit) = (*slot as usize / 64, 1 << (*slot % 64));
            if self.bits[word] & bit == 0 {
                self.bits[word] |= bit;
                self.slots.push(*slot);
            }
        }
    }

    pub(super) fn has(&self, slot: u32) -> bool {
        self.bits.get(slot as usize / 64).is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// In the order in which they were marked first.
    pub(super) fn slots(&self) -> &[u32] {
        &self.slots
    }

    /// Cost: O(slots in it).
    pub(super) fn clear(&mut self) {
        for slot in self.slots.drain(..) {
            self.bits[slot as usize / 64] = 0;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>() + self.bits.capacity() * size_of::<u64>()
    }
}

pub(super) fn slot_number(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}
