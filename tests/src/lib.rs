//! What the tests share: trees, snapshots of trees, and the sandbox they are moved in.
