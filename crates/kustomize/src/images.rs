//! New names, tags and digests for images.

use plumb_yaml::{LineMark, Node, ScalarTag};
use regex::Regex;

use crate::acc::Acc;
use crate::budget::Budget;
use crate::error::{Result, invalid};
use crate::fieldspec::{Create, FieldSpec, set_scalar};
use crate::kustomization::Image;
use crate::simple::{each, prepare};

/// Changes the name, tag and digest of an image.
pub(crate) fn set_image(
    acc: &mut Acc,
    budget: &Budget<'_>,
    image: &Image,
    mark: LineMark,
    specs: &[FieldSpec],
) -> Result<()> {
    let Some(updater) = Updater::new(image, mark, budget) else {
        return Ok(());
    };
    prepare(acc, specs);
    for res in &mut acc.items {
        budget.ask()?;
        if res.kind() == "CustomResourceDefinition" {
            continue;
        }
        res.story.touched = true;
        updater.containers(&mut res.node).map_err(|error| error.of_object(res))?;
        each(res, specs, Create::Nothing, &mut |node| updater.update(node))?;
    }
    Ok(())
}

/// The name of an image in a kustomization, which is an expression to the reference.
#[derive(Debug)]
enum Name<'i> {
    /// A text in which a dot stands for any character and everything else for itself.
    Dotted(&'i str),
    Regex(Regex),
}

impl<'i> Name<'i> {
    /// A name that is no expression matches nothing.
    fn new(name: &'i str) -> Option<Self> {
        let simple = |byte: u8| byte.is_ascii_alphanumeric() || b"/.:_-".contains(&byte);
        if name.bytes().all(simple) {
            return Some(Self::Dotted(name));
        }
        Self::regex(name)
    }

    fn regex(name: &str) -> Option<Self> {
        let pattern = format!(
            "^{name}(:[a-zA-Z0-9_.{{}}-]*)?(@[a-zA-Z0-9]+([.+_-][a-zA-Z0-9]+)*:[a-zA-Z0-9_.{{}}-]*)?$"
        );
        crate::selector::regex(&pattern).ok().map(Self::Regex)
    }

    /// Whether an image has the name, with a tag and a digest or without.
    fn fits(&self, image: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(image),
            Self::Dotted(name) => {
                let mut rest = image.chars();
                let fits = name.chars().all(|c| {
                    rest.next().is_some_and(|d| if c == '.' { d != '\n' } else { c == d })
                });
                fits && is_tag_and_digest(rest.as_str())
            }
        }
    }
}

fn is_tag_and_digest(text: &str) -> bool {
    let is_word = |text: &str| {
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.{}-".contains(&byte))
    };
    let (tag, digest) = match text.split_once('@') {
        Some((tag, digest)) => (tag, Some(digest)),
        None => (text, None),
    };
    let tag_fits = tag.is_empty() || tag.strip_prefix(':').is_some_and(is_word);
    tag_fits
        && digest.is_none_or(|digest| {
            digest.split_once(':').is_some_and(|(algorithm, hash)| {
                algorithm.split(['.', '+', '_', '-']).all(|part| {
                    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
                }) && is_word(hash)
            })
        })
}

struct Updater<'i> {
    image: &'i Image,
    mark: LineMark,
    name: Name<'i>,
    budget: &'i Budget<'i>,
}

impl<'i> Updater<'i> {
    fn new(image: &'i Image, mark: LineMark, budget: &'i Budget<'i>) -> Option<Self> {
        Some(Self { image, mark, name: Name::new(&image.name)?, budget })
    }

    /// Every `image` in lists called containers or initContainers, in whatever object.
    fn containers(&self, node: &mut Node) -> Result<()> {
        match node {
            Node::Map(map) => {
                for (key, value) in map {
                    self.containers(value)?;
                    if !matches!(key.as_str(), "containers" | "initContainers") {
                        continue;
                    }
                    let Node::List(items) = value else { continue };
                    for item in items {
                        match item {
                            Node::Map(container) => {
                                if let Some(image) = container.get_mut("image") {
                                    self.update(image)?;
                                }
                            }
                            item if item.is_null() => {}
                            _ => return Err(invalid!("{key} has an item that is not a map")),
                        }
                    }
                }
                Ok(())
            }
            Node::List(items) => items.iter_mut().try_for_each(|item| self.containers(item)),
            Node::Scalar(_) => Ok(()),
        }
    }

    fn update(&self, node: &mut Node) -> Result<()> {
        let Some(old) = node.text() else {
            return Err(invalid!("an image is not a scalar"));
        };
        if !self.name.fits(old) {
            return Ok(());
        }
        let Image { new_name, new_tag, digest: new_digest, tag_suffix, .. } = self.image;
        let (name, tag, digest) = split_image(old);
        let mut name = if new_name.is_empty() { name.to_owned() } else { new_name.clone() };
        let (tag, digest) = if !new_tag.is_empty() || !new_digest.is_empty() {
            (new_tag.clone(), new_digest.as_str())
        } else if tag_suffix.is_empty() {
            (tag.to_owned(), digest)
        } else {
            (format!("{tag}{tag_suffix}"), "")
        };
        if !tag.is_empty() {
            name = format!("{name}:{tag}");
        }
        if !digest.is_empty() {
            name = format!("{name}@{digest}");
        }
        self.budget.spend(name.len())?;
        set_scalar(node, &name, ScalarTag::None, self.mark)
    }
}

/// Name, tag and digest of an image; a colon before the first slash is a port's.
fn split_image(image: &str) -> (&str, &str, &str) {
    let start = image.find('/').unwrap_or(0);
    let at = image[start..].find('@').map(|at| at + start);
    let colon = image[start..].find(':').map(|colon| colon + start);
    match (colon, at) {
        (None, None) => (image, "", ""),
        (Some(colon), None) => (&image[..colon], &image[colon + 1..], ""),
        (Some(colon), Some(at)) if colon < at => {
            (&image[..colon], &image[colon + 1..at], &image[at + 1..])
        }
        (_, Some(at)) => (&image[..at], "", &image[at + 1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_split() {
        let cases = [
            ("nginx", ("nginx", "", "")),
            ("nginx:1.2", ("nginx", "1.2", "")),
            ("host:5000/nginx", ("host:5000/nginx", "", "")),
            ("host:5000/nginx:1@sha256:ab", ("host:5000/nginx", "1", "sha256:ab")),
            ("nginx@sha256:ab", ("nginx", "", "sha256:ab")),
        ];
        for (image, want) in cases {
            assert_eq!(split_image(image), want, "{image}");
        }
    }

    #[test]
    fn names_fit_as_the_expression_does() {
        let seed = 3;
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let parts =
            ["a", "nginx", ".", ":", "@", "1", "sha256", "/", "-", "_", "+", "{", "é", "\n"];
        let mut fitting = 0;
        for _ in 0..300 {
            let mut text = |count: u8| -> String {
                let count = random.u8(0..count);
                (0..count).map(|_| random.choice(parts).unwrap_or_default()).collect()
            };
            let name: String = text(3).chars().filter(|c| !"@+{é\n".contains(*c)).collect();
            let expression = Name::regex(&name).unwrap();
            let plain = Name::new(&name).unwrap();
            assert!(matches!(plain, Name::Dotted(_)));
            for _ in 0..60 {
                let image = format!("{name}{}", text(8));
                assert_eq!(plain.fits(&image), expression.fits(&image), "{name:?} {image:?}");
                fitting += u32::from(plain.fits(&image));
            }
        }
        assert!(fitting > 1000, "{fitting}");
    }
}
