//! Recovery, verification, inspection of any directory: a whole one, changed as the fuzzer says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use loglog_fuzz::input::Input;
use loglog_fuzz::{alter, base, look};

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let Some(which) = input.u8() else { return };
    let mut files = base::files(which);
    alter::alter(&mut files, &mut input);
    look::look(&base::plant(&files));
});
