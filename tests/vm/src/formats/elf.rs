//! A program whose interpreter is named far behind its start, as patchelf leaves it.

/// Where both programs are loaded; they do not overlap.
const PROGRAM: u64 = 0x40_0000;
const INTERPRETER: u64 = 0x1000_0000;
/// The interpreter's name in the program: behind the first 4096 bytes.
const NAME_AT: usize = 8192;

/// An x86-64 program with the interpreter `/interpreter`.
pub(super) fn program() -> Vec<u8> {
    let name = b"/interpreter\0";
    let mut bytes = header(PROGRAM, &[(3, NAME_AT as u64, name.len() as u64), (1, 0, 4096)]);
    bytes.resize(NAME_AT, 0);
    bytes.extend_from_slice(name);
    bytes
}

/// That interpreter: it executes `/probe`.
pub(super) fn interpreter() -> Vec<u8> {
    let code: [&[u8]; 10] = [
        &[0x48, 0x8d, 0x3d, 17, 0, 0, 0], // lea rdi, [path]
        &[0x31, 0xd2],                    // xor edx, edx
        &[0x6a, 0],                       // push 0
        &[0x57],                          // push rdi
        &[0x48, 0x89, 0xe6],              // mov rsi, rsp
        &[0xb8, 59, 0, 0, 0],             // mov eax, execve
        &[0x0f, 0x05],                    // syscall
        &[0xeb, 0xfe],                    // forever
        b"/probe",
        &[0],
    ];
    let mut bytes = header(INTERPRETER, &[(1, 0, 4096)]);
    bytes.resize(ENTRY, 0);
    bytes.extend(code.concat());
    bytes.resize(4096, 0);
    bytes
}

/// Offset of the first instruction.
const ENTRY: usize = 512;

/// An ELF header and program headers of type, offset and size (elf(5)).
fn header(address: u64, parts: &[(u32, u64, u64)]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    let mut put = |number: u64, size: usize| bytes.extend_from_slice(&number.to_le_bytes()[..size]);
    // ET_EXEC for x86-64; entry point, program headers, no sections.
    for (number, size) in [(2, 2), (62, 2), (1, 4), (address + ENTRY as u64, 8), (64, 8), (0, 8), (0, 4)] {
        put(number, size);
    }
    for (number, size) in [(64, 2), (56, 2), (parts.len() as u64, 2), (0, 2), (0, 2), (0, 2)] {
        put(number, size);
    }
    for (kind, offset, length) in parts {
        for (number, size) in [(u64::from(*kind), 4), (5, 4), (*offset, 8), (address + offset, 8)] {
            put(number, size);
        }
        for number in [address + offset, *length, *length, 4096] {
            put(number, 8);
        }
    }
    bytes
}
