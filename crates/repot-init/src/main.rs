//! The `/init`.
#![no_std]
#![no_main]
mod sys;
