//! Folders that a layer only implied.
