//! The 16,384 slots of a cluster, and which one a name is in.

/// How many slots a cluster has.
pub(super) const SLOTS: usize = 16_384;

/// The slot of a name: that of what stands in its first `{…}`, if there is something, else of all.
pub(super) fn slot(name: &[u8]) -> u16 {
    let tag = || {
        let open = name.iter().position(|byte| *byte == b'{')?;
        let rest = &name[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    };
    // A divisor that is a power of two takes the lower bits.
    crc16(tag().unwrap_or(name)) & 0x3FFF
}

/// CRC-16/XMODEM, as the specification of clusters has it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0_u16, |sum, byte| {
        (0..8).fold(sum ^ (u16::from(*byte) << 8), |sum, _| {
            let high = sum & 0x8000 != 0;
            (sum << 1) ^ if high { 0x1021 } else { 0 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_in_the_slot_that_servers_say() {
        // As `CLUSTER KEYSLOT` has it.
        for (name, expected) in [
            ("123456789", 12739),
            ("foo", 12182),
            ("{user1000}.following", 3443),
            ("user1000", 3443),
            ("foo{}{bar}", 8363),
            ("foo{{bar}}zap", 4015),
            ("{bar", 4015),
            ("foo{bar}{zap}", 5061),
        ] {
            assert_eq!(slot(name.as_bytes()), expected, "{name}");
        }
    }
}
