//! Consistent hashing: which backend a key belongs to. The ring is the same in every Queen client, so that all clients of
//! a group meet at the same broker.

/// A ring of virtual nodes, built once.
pub(super) struct Ring(Vec<Node>);

struct Node {
    hash: u32,
    backend: usize,
}

impl Ring {
    /// `nodes` virtual nodes for each URL.
    pub(super) fn new(urls: &[String], nodes: usize) -> Ring {
        let mut ring: Vec<_> = urls
            .iter()
            .enumerate()
            .flat_map(|(backend, url)| {
                (0..nodes).map(move |node| Node {
                    hash: fnv1a(&format!("{url}#vnode{node}")),
                    backend,
                })
            })
            .collect();
        ring.sort_by_key(|node| node.hash);
        Ring(ring)
    }

    /// The backends of the nodes from the key's place on, once around; a key behind the last node starts at the first.
    pub(super) fn from(&self, key: &str) -> impl Iterator<Item = usize> {
        let hash = fnv1a(key);
        let start = self.0.partition_point(|node| node.hash < hash);
        let (before, after) = self.0.split_at(start);
        after.iter().chain(before).map(|node| node.backend)
    }
}

/// FNV-1a of 32 bits over the bytes of UTF-8.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(2_166_136_261, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(16_777_619)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/affinity.json")).unwrap()
    }

    fn urls(ring: &Value) -> Vec<String> {
        serde_json::from_value(ring["urls"].clone()).unwrap()
    }

    #[test]
    fn l2_v1_c26_hashes_the_bytes_of_utf8() {
        let vectors = vectors();
        let hashes = vectors["hashes"].as_object().unwrap();
        assert!(hashes.len() > 8);
        for (key, hash) in hashes {
            assert_eq!(u64::from(fnv1a(key)), hash.as_u64().unwrap(), "{key}");
        }
    }

    #[test]
    fn l3_v2_the_ring_has_128_nodes_for_each_url() {
        for vector in vectors()["rings"].as_array().unwrap() {
            let urls = urls(vector);
            let ring = Ring::new(&urls, 128);
            assert_eq!(ring.0.len(), 128 * urls.len());
            for (node, name) in [(&ring.0[0], "first"), (&ring.0[ring.0.len() - 1], "last")] {
                assert_eq!(u64::from(node.hash), vector[name][0].as_u64().unwrap());
                assert_eq!(urls[node.backend], vector[name][1].as_str().unwrap());
            }
        }
    }

    #[test]
    fn l1_a_key_belongs_to_the_next_node() {
        for vector in vectors()["rings"].as_array().unwrap() {
            let urls = urls(vector);
            let ring = Ring::new(&urls, 128);
            for (key, url) in vector["keys"].as_object().unwrap() {
                let backend = ring.from(key).next().unwrap();
                assert_eq!(urls[backend], url.as_str().unwrap(), "{key}");
            }
        }
    }

    #[test]
    fn c31_a_key_behind_the_last_node_starts_at_the_first() {
        let ring = Ring::new(
            &[
                "http://queen-1:6632".into(),
                "http://queen-2:6632".into(),
                "http://queen-3:6632".into(),
            ],
            128,
        );
        let key = "orders-23124:*:workers";
        assert!(fnv1a(key) > ring.0.last().unwrap().hash);
        assert_eq!(ring.from(key).next(), Some(ring.0[0].backend));
        assert_eq!(ring.from(key).count(), 3 * 128);
    }

    #[test]
    fn c25_more_nodes_spread_more_evenly() {
        let urls: Vec<_> = (0..3).map(|n| format!("http://queen-{n}:6632")).collect();
        let spread = |nodes| {
            let ring = Ring::new(&urls, nodes);
            let mut share = [0; 3];
            for n in 0..30_000 {
                share[ring.from(&format!("queue-{n}:*:g")).next().unwrap()] += 1;
            }
            share.iter().max().unwrap() - share.iter().min().unwrap()
        };
        assert!(
            spread(2048) < spread(128),
            "{} {}",
            spread(2048),
            spread(128)
        );
    }
}
