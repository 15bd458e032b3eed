//! The entry point of a program without the standard library.

/// Defines the entry point of a program without `std`: a C `main` that calls `$main` with the
/// [`Invocation`](crate::runtime::Invocation), the [`Allocator`](crate::runtime::Allocator), and what the
/// prebuilt `alloc` refers to. `$main` returns the exit status.
///
/// The program defines its own panic handler, allows `unsafe_code` in the module that calls this, and has
/// `panic = "abort"` in its profile.
///
/// Source: `main` in C11 (5.1.2.2.1), with `envp` as in environ(7).
#[macro_export]
macro_rules! entry {
    ($main:expr) => {
        // The prebuilt `alloc` refers to both, although nothing unwinds here: a panic never returns.
        #[unsafe(no_mangle)]
        extern "C" fn rust_eh_personality() {}
        #[cfg(target_env = "musl")]
        #[unsafe(no_mangle)]
        extern "C" fn _Unwind_Resume() -> ! {
            loop {
                $crate::runtime::sleep(3600);
            }
        }

        #[link(name = "c")]
        unsafe extern "C" {}
        // The streams of glibc refer to the unwinder.
        #[cfg(target_env = "gnu")]
        #[link(name = "gcc_eh")]
        unsafe extern "C" {}

        $crate::entry_beside_std!($main);
    };
}

/// Does the same for a program that has `std`, but not its start-up code, which ends the program if
/// `/dev/null` is missing. `std` brings the panic handler, which calls the hook of the program.
#[macro_export]
macro_rules! entry_beside_std {
    ($main:expr) => {
        #[global_allocator]
        static MALLOC: $crate::runtime::Allocator = $crate::runtime::Allocator;

        #[unsafe(no_mangle)]
        extern "C" fn main(
            _argc: ::core::ffi::c_int,
            argv: *mut *const ::core::ffi::c_char,
            envp: *const *const ::core::ffi::c_char,
        ) -> ::core::ffi::c_int {
            // SAFETY: the C library passes on the arrays of the kernel. They end with a null pointer, live as
            // long as the process and belong to the program.
            let invocation = unsafe { $crate::runtime::Invocation::of_main(argv, envp) };
            ($main)(invocation)
        }
    };
}
