//! What the fuzz targets share.

pub mod mutate;
pub mod play;

/// Has the fuzzer change texts word by word, with the words of a target's seeds.
#[macro_export]
macro_rules! changes_texts {
    ($target:literal) => {
        fn dictionary() -> &'static $crate::mutate::Dictionary {
            static READ: std::sync::OnceLock<$crate::mutate::Dictionary> =
                std::sync::OnceLock::new();
            READ.get_or_init(|| {
                let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/", $target);
                $crate::mutate::Dictionary::read(std::path::Path::new(seeds))
            })
        }

        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
            let mut random = $crate::mutate::Random::new(seed);
            if random.below(5) == 0 {
                return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
            }
            let text = dictionary().change(&data[..size], &mut random);
            let length = text.len().min(max_size);
            data[..length].copy_from_slice(&text[..length]);
            length
        });

        libfuzzer_sys::fuzz_crossover!(|one: &[u8], other: &[u8], out: &mut [u8], seed: u32| {
            let mut random = $crate::mutate::Random::new(seed);
            let text = $crate::mutate::cross(one, other, &mut random);
            let length = text.len().min(out.len());
            out[..length].copy_from_slice(&text[..length]);
            length
        });
    };
}
