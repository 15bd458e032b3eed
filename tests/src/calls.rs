//! Names of system calls.

macro_rules! names {
    ($($(#[$only:meta])? $call:ident $name:literal),* $(,)?) => {
        /// Numbers and names of the calls that a small static program makes.
        const NAMES: &[(i64, &str)] = &[$($(#[$only])? (libc::$call as i64, $name)),*];
    };
}

names! {
    SYS_read "read", SYS_write "write", SYS_close "close", SYS_fstat "fstat", SYS_lseek "lseek", SYS_mmap "mmap",
    SYS_mprotect "mprotect", SYS_munmap "munmap", SYS_brk "brk", SYS_rt_sigaction "rt_sigaction",
    SYS_rt_sigprocmask "rt_sigprocmask", SYS_ioctl "ioctl", SYS_pread64 "pread64", SYS_pwrite64 "pwrite64",
    SYS_readv "readv", SYS_writev "writev", SYS_sched_yield "sched_yield", SYS_mremap "mremap", SYS_mincore "mincore",
    SYS_madvise "madvise", SYS_dup "dup", SYS_dup3 "dup3", SYS_nanosleep "nanosleep", SYS_getpid "getpid",
    SYS_sendfile "sendfile", SYS_clone "clone", SYS_clone3 "clone3", SYS_execve "execve", SYS_exit "exit",
    SYS_exit_group "exit_group", SYS_wait4 "wait4", SYS_kill "kill", SYS_uname "uname", SYS_fcntl "fcntl",
    SYS_fsync "fsync", SYS_ftruncate "ftruncate", SYS_getdents64 "getdents64", SYS_getcwd "getcwd", SYS_chdir "chdir",
    SYS_fchdir "fchdir", SYS_fchmod "fchmod", SYS_fchown "fchown", SYS_umask "umask", SYS_gettid "gettid",
    SYS_getuid "getuid", SYS_getgid "getgid", SYS_geteuid "geteuid", SYS_getegid "getegid", SYS_syslog "syslog",
    SYS_sysinfo "sysinfo", SYS_statfs "statfs", SYS_fstatfs "fstatfs", SYS_prctl "prctl", SYS_chroot "chroot",
    SYS_mount "mount", SYS_umount2 "umount2", SYS_pivot_root "pivot_root", SYS_reboot "reboot", SYS_sync "sync",
    SYS_setxattr "setxattr", SYS_lsetxattr "lsetxattr", SYS_fsetxattr "fsetxattr", SYS_getxattr "getxattr",
    SYS_lgetxattr "lgetxattr", SYS_fgetxattr "fgetxattr", SYS_listxattr "listxattr", SYS_llistxattr "llistxattr",
    SYS_flistxattr "flistxattr", SYS_futex "futex", SYS_sched_getaffinity "sched_getaffinity",
    SYS_set_tid_address "set_tid_address", SYS_set_robust_list "set_robust_list", SYS_fallocate "fallocate",
    SYS_clock_gettime "clock_gettime", SYS_clock_nanosleep "clock_nanosleep", SYS_openat "openat",
    SYS_mkdirat "mkdirat", SYS_mknodat "mknodat", SYS_fchownat "fchownat", SYS_newfstatat "newfstatat",
    SYS_unlinkat "unlinkat", SYS_renameat2 "renameat2", SYS_linkat "linkat", SYS_symlinkat "symlinkat",
    SYS_swapon "swapon", SYS_swapoff "swapoff", SYS_finit_module "finit_module",
    SYS_readlinkat "readlinkat", SYS_fchmodat "fchmodat", SYS_faccessat "faccessat", SYS_ppoll "ppoll",
    SYS_utimensat "utimensat", SYS_pipe2 "pipe2", SYS_prlimit64 "prlimit64", SYS_copy_file_range "copy_file_range",
    SYS_getrandom "getrandom", SYS_memfd_create "memfd_create", SYS_statx "statx", SYS_rseq "rseq",
    SYS_open_tree "open_tree", SYS_move_mount "move_mount", SYS_fsopen "fsopen", SYS_fsconfig "fsconfig",
    SYS_fsmount "fsmount", SYS_fspick "fspick", SYS_close_range "close_range", SYS_openat2 "openat2",
    SYS_fremovexattr "fremovexattr", SYS_mount_setattr "mount_setattr", SYS_splice "splice", SYS_getrusage "getrusage", SYS_getppid "getppid",
    #[cfg(target_arch = "x86_64")] SYS_arch_prctl "arch_prctl",
    #[cfg(target_arch = "x86_64")] SYS_poll "poll",
    #[cfg(target_arch = "x86_64")] SYS_open "open",
    #[cfg(target_arch = "x86_64")] SYS_stat "stat",
    #[cfg(target_arch = "x86_64")] SYS_dup2 "dup2",
    #[cfg(target_arch = "x86_64")] SYS_time "time",
}

/// The name of a call, or its number if the name is unknown.
#[must_use]
pub fn name(call: i64) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == call);
    known.map_or_else(|| format!("call {call}"), |(_, name)| (*name).to_owned())
}
