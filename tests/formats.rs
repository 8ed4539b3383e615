//! Images as files: what skopeo, umoci and tar make of ours, and the store of theirs.
