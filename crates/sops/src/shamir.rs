//! Puts a secret together from shares, as Vault and SOPS split it: in GF(2^8), each share the values
//! of as many polynomials as the secret has bytes, and behind them the place where they were taken.

/// The secret of some shares, unless they cannot be of one.
pub(crate) fn combine(shares: &[Vec<u8>]) -> Option<Vec<u8>> {
    let length = shares.first()?.len();
    let places: Vec<u8> = shares.iter().filter_map(|share| share.last().copied()).collect();
    let distinct = (1..places.len()).all(|i| !places[..i].contains(&places[i]));
    let sound = shares.len() > 1 && length > 1 && distinct && !places.contains(&0);
    if !sound || shares.iter().any(|share| share.len() != length) {
        return None;
    }
    let secret = (0..length - 1).map(|byte| {
        (0..shares.len()).fold(0, |sum, i| {
            // The weight of a share where the polynomial is looked at: at zero.
            let weight = (0..places.len())
                .filter(|j| *j != i)
                .fold(1, |product, j| multiply(product, divide(places[j], places[i] ^ places[j])));
            sum ^ multiply(shares[i][byte], weight)
        })
    });
    Some(secret.collect())
}

/// The product in the field of AES, in the same time for all numbers.
fn multiply(a: u8, b: u8) -> u8 {
    (0..8).rev().fold(0, |sum: u8, bit| {
        let doubled = (sum << 1) ^ (0x1b & (sum >> 7).wrapping_neg());
        doubled ^ (a & (b >> bit & 1).wrapping_neg())
    })
}

/// `b` is not zero.
fn divide(a: u8, b: u8) -> u8 {
    // A number to the power of 254 is its inverse.
    let (inverse, _) = (0..7).fold((1, b), |(product, power), _| {
        let square = multiply(power, power);
        (multiply(product, square), square)
    });
    multiply(a, inverse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_that_of_aes() {
        assert_eq!(multiply(0x57, 0x83), 0xc1);
        for a in 1..=255 {
            assert_eq!(multiply(divide(7, a), a), 7, "{a}");
        }
    }

    #[test]
    fn any_shares_that_are_enough_give_the_secret() {
        // The polynomials 0x2a + 3x and 0 + 0xc8x.
        let share = |x: u8| vec![0x2a ^ multiply(3, x), multiply(0xc8, x), x];
        for places in [[1, 2], [2, 1], [3, 255]] {
            assert_eq!(combine(&places.map(share)), Some(vec![0x2a, 0]), "{places:?}");
        }
        assert_eq!(combine(&[share(1), share(2), share(3)]), Some(vec![0x2a, 0]));
        let broken = [
            vec![],
            vec![share(1)],
            vec![share(1), share(1)],
            vec![share(1), vec![1, 2]],
            vec![share(1), share(0)],
            vec![vec![1], vec![2]],
        ];
        for shares in broken {
            assert_eq!(combine(&shares), None, "{shares:?}");
        }
    }
}
