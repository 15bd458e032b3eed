//! The tool for the person who builds images.
