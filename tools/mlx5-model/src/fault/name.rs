// SPDX-License-Identifier: GPL-2.0

//! Numbers that may be given by name.

use serde::{
    Deserialize,
    Serialize, //
};

use super::FaultError;

/// A number, or the name the reference has for it. A number may also be written as text, `"0x301"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Name {
    /// The number.
    Number(u64),
    /// Its name.
    Text(String),
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self::Text(name.to_owned())
    }
}

impl Name {
    /// The number: one of `all`, which `name` names, or any other up to `most`.
    fn resolve<T: Copy>(
        &self,
        what: &'static str,
        all: &[T],
        name: fn(T) -> &'static str,
        number: fn(T) -> u64,
        most: u64,
    ) -> Result<u64, FaultError> {
        let value = match self {
            Self::Number(number) => Some(*number),
            Self::Text(text) => all
                .iter()
                .find(|one| name(**one).eq_ignore_ascii_case(text))
                .map(|one| number(*one))
                .or_else(|| match text.strip_prefix("0x") {
                    Some(digits) => u64::from_str_radix(digits, 16).ok(),
                    None => text.parse().ok(),
                }),
        };
        match value {
            Some(number) if number > most => Err(FaultError::TooLarge { what, number, most }),
            Some(number) => Ok(number),
            None => {
                let names: Vec<_> = all.iter().map(|one| name(*one)).collect();
                Err(FaultError::Unknown {
                    what,
                    name: self.to_string(),
                    known: names.join(", "),
                })
            }
        }
    }

    /// The number, of 8 bits.
    pub(super) fn resolve_u8<T: Copy + prm::layout::Field>(
        &self,
        what: &'static str,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Result<u8, FaultError> {
        self.resolve(what, all, name, T::into_bits, u8::MAX.into())
            .map(|number| number as u8)
    }

    /// The number, of 16 bits.
    pub(super) fn resolve_u16<T: Copy + prm::layout::Field>(
        &self,
        what: &'static str,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Result<u16, FaultError> {
        self.resolve(what, all, name, T::into_bits, u16::MAX.into())
            .map(|number| number as u16)
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use prm::Opcode;

    #[test]
    fn a_number_has_three_spellings() {
        let number = |name: Name| name.resolve_u16("command", Opcode::ALL, Opcode::name);
        assert_eq!(number("create_eq".into()), Ok(0x301));
        assert_eq!(number("0x301".into()), Ok(0x301));
        assert_eq!(number(Name::Number(0x301)), Ok(0x301));
        assert!(number("0x".into()).is_err());
        assert!(number("0x10000".into()).is_err());
    }
}
