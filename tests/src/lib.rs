//! The acceptance crate: sees only public API. Everything lies in `tests/acceptance`.
