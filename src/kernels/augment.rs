//! How training pictures are distorted: settings and their text form. `shaders/batch.wgsl` does it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Random distortions of the training pictures, drawn anew for each picture in each step; a setting of 0 does
/// nothing.
///
/// The text form, which settings files hold, is what `--augment` takes: `shift=2,rotate=10,elastic=4:5,flip`.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Augment {
    /// Shifted by up to this many pixels in each direction, and parts of them.
    pub shift: f32,
    /// Rotated about the centre by up to this many degrees.
    pub rotate: f32,
    /// Magnified by 1 − `scale` to 1 + `scale`.
    pub scale: f32,
    /// Sheared along x by up to this many degrees.
    pub shear: f32,
    /// Distorted by a smooth random field.
    pub elastic: Elastic,
    /// The standard deviation of the noise on pixels / 255.
    pub noise: f32,
    /// The side of a square of background, in pixels, about a pixel of the picture (DeVries and Taylor 2017).
    pub cutout: u32,
    /// Every second picture is flipped left to right.
    pub flip: bool,
}

/// Elastic distortion (Simard, Steinkraus and Platt 2003): random vectors on a lattice of √3 · `sigma` pixels under
/// a cubic B-spline, in place of a random vector a pixel under a Gaussian.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Elastic {
    /// The largest displacement in each direction, in pixels; root mean square 0.277 of it. Simard's α is
    /// 1.7 · `alpha` · `sigma` where his field is not scaled to a norm of 1: 34 with a σ of 4 is an `alpha` of 5.
    pub alpha: f32,
    /// Its smoothness, in pixels: the standard deviation of the spline, like Simard's σ.
    pub sigma: f32,
}

impl Elastic {
    /// Pixels between two points of the lattice: a cubic B-spline over it has the standard deviation `sigma`.
    pub fn spacing(self) -> f32 {
        3f32.sqrt() * self.sigma
    }
}

impl Augment {
    /// Nothing.
    pub const NONE: Augment = Augment {
        shift: 0.0,
        rotate: 0.0,
        scale: 0.0,
        shear: 0.0,
        elastic: Elastic { alpha: 0.0, sigma: 0.0 },
        noise: 0.0,
        cutout: 0,
        flip: false,
    };

    /// What digits undergo within a few epochs.
    pub const LIGHT: Augment = Augment { shift: 1.0, rotate: 8.0, scale: 0.08, ..Augment::NONE };

    /// Harder: sheared, elastic and with a hole, too.
    pub const STRONG: Augment = Augment {
        shift: 2.0,
        rotate: 12.0,
        scale: 0.12,
        shear: 10.0,
        elastic: Elastic { alpha: 4.0, sigma: 4.0 },
        cutout: 6,
        ..Augment::NONE
    };

    /// Settings under a name.
    pub const RECIPES: [(&str, Augment); 3] =
        [("none", Augment::NONE), ("light", Augment::LIGHT), ("strong", Augment::STRONG)];

    /// Whether pictures stay as they are.
    pub fn is_none(&self) -> bool {
        // What is smooth does not matter where nothing moves.
        let elastic = Elastic { alpha: self.elastic.alpha, sigma: 0.0 };
        Augment { elastic, ..*self } == Augment::NONE
    }

    /// Checks every setting's range.
    ///
    /// # Errors
    /// [`Error::Settings`] with the setting's name, its value and what was expected.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("shift", self.shift, 256.0),
            ("rotate", self.rotate, 180.0),
            ("scale", self.scale, 0.9),
            ("shear", self.shear, 60.0),
            ("elastic's alpha", self.elastic.alpha, 256.0),
            ("noise", self.noise, 10.0),
            ("cutout", self.cutout as f32, 1024.0),
        ] {
            if !(0.0..=most).contains(&value) {
                return Err(Error::Settings(format!("augment: {name} is {value}, expected 0 to {most}")));
            }
        }
        let Elastic { alpha, sigma } = self.elastic;
        if alpha > 0.0 && !(1.0..=256.0).contains(&sigma) {
            return Err(Error::Settings(format!("augment: elastic's sigma is {sigma}, expected 1 to 256")));
        }
        Ok(())
    }
}

impl fmt::Display for Augment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Augment { shift, rotate, scale, shear, elastic: Elastic { alpha, sigma }, noise, cutout, flip } =
            *self;
        let amount = |name: &str, value: f32| (value != 0.0).then(|| format!("{name}={value}"));
        let items = [
            amount("shift", shift),
            amount("rotate", rotate),
            amount("scale", scale),
            amount("shear", shear),
            (alpha != 0.0).then(|| format!("elastic={alpha}:{sigma}")),
            amount("noise", noise),
            (cutout != 0).then(|| format!("cutout={cutout}")),
            flip.then(|| "flip".into()),
        ];
        let items: Vec<String> = items.into_iter().flatten().collect();
        f.write_str(if items.is_empty() { "none".into() } else { items.join(",") }.as_str())
    }
}

impl FromStr for Augment {
    type Err = Error;

    /// Reads the text form; a recipe's name may come first, and what follows it changes it.
    ///
    /// # Errors
    /// [`Error::Settings`] with the part that is wrong and what was expected.
    fn from_str(text: &str) -> Result<Augment> {
        let refuse = |what: String| Err(Error::Settings(format!("augment: {what}")));
        let number = |name: &str, value: &str| match value.trim().parse::<f32>() {
            Ok(value) => Ok(value),
            Err(_) => Err(Error::Settings(format!("augment: {name} is {value:?}, expected a number"))),
        };
        let mut augment = Augment::NONE;
        let mut given = Vec::new();
        for (at, item) in text.split(',').enumerate() {
            let (name, value) = match item.split_once('=') {
                Some((name, value)) => (name.trim(), Some(value)),
                None => (item.trim(), None),
            };
            if given.contains(&name) {
                return refuse(format!("{name} is given twice"));
            }
            given.push(name);
            let recipe = Augment::RECIPES.into_iter().find(|(recipe, _)| *recipe == name);
            match (name, value) {
                (_, None) if at == 0 && recipe.is_some() => augment = recipe.unwrap_or_default().1,
                ("shift", Some(value)) => augment.shift = number(name, value)?,
                ("rotate", Some(value)) => augment.rotate = number(name, value)?,
                ("scale", Some(value)) => augment.scale = number(name, value)?,
                ("shear", Some(value)) => augment.shear = number(name, value)?,
                ("noise", Some(value)) => augment.noise = number(name, value)?,
                ("elastic", Some(value)) => match value.split_once(':') {
                    Some((alpha, sigma)) => {
                        augment.elastic =
                            Elastic { alpha: number(name, alpha)?, sigma: number(name, sigma)? };
                    }
                    None => return refuse(format!("elastic is {value:?}, expected alpha:sigma, as in 4:5")),
                },
                ("cutout", Some(value)) => match value.trim().parse() {
                    Ok(side) => augment.cutout = side,
                    Err(_) => return refuse(format!("cutout is {value:?}, expected whole pixels")),
                },
                ("flip", None) => augment.flip = true,
                _ => {
                    return refuse(format!(
                        "{:?} found, expected shift=X, rotate=X, scale=X, shear=X, elastic=X:X, noise=X, \
                         cutout=N or flip, or first of all none, light or strong",
                        item.trim()
                    ));
                }
            }
        }
        augment.check()?;
        Ok(augment)
    }
}

impl TryFrom<String> for Augment {
    type Error = Error;

    fn try_from(text: String) -> Result<Augment> {
        text.parse()
    }
}

impl From<Augment> for String {
    fn from(augment: Augment) -> String {
        augment.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn recipes_hold_and_can_be_changed() {
        for (name, recipe) in Augment::RECIPES {
            recipe.check().unwrap();
            assert_eq!(name.parse::<Augment>().unwrap(), recipe);
            assert_eq!(recipe.to_string().parse::<Augment>().unwrap(), recipe);
            assert_eq!(recipe.is_none(), name == "none");
        }
        let changed = Augment { shear: 20.0, flip: true, ..Augment::LIGHT };
        assert_eq!(" light, shear = 20 ,flip".parse::<Augment>().unwrap(), changed);
        assert_eq!("strong,rotate=0".parse::<Augment>().unwrap(), Augment { rotate: 0.0, ..Augment::STRONG });
    }

    #[test]
    fn every_setting_counts() {
        let all = "shift=2,rotate=10,scale=0.1,shear=11,elastic=4:5,noise=0.05,cutout=8,flip";
        assert_eq!(all.parse::<Augment>().unwrap().to_string(), all);
        for item in all.split(',') {
            let one: Augment = item.parse().unwrap();
            assert!(!one.is_none(), "{item}");
            assert_eq!(one.to_string(), item);
        }
        assert!("elastic=0:5".parse::<Augment>().unwrap().is_none());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |text: &str| text.parse::<Augment>().unwrap_err().to_string();
        assert_eq!(refused("shift=-1"), "augment: shift is -1, expected 0 to 256");
        assert_eq!(refused("rotate=181"), "augment: rotate is 181, expected 0 to 180");
        assert_eq!(refused("scale=1"), "augment: scale is 1, expected 0 to 0.9");
        assert_eq!(refused("shear=NaN"), "augment: shear is NaN, expected 0 to 60");
        assert_eq!(refused("noise=inf"), "augment: noise is inf, expected 0 to 10");
        assert_eq!(refused("cutout=1025"), "augment: cutout is 1025, expected 0 to 1024");
        assert_eq!(refused("cutout=2.5"), "augment: cutout is \"2.5\", expected whole pixels");
        assert_eq!(refused("elastic=300:4"), "augment: elastic's alpha is 300, expected 0 to 256");
        assert_eq!(refused("elastic=3:0.5"), "augment: elastic's sigma is 0.5, expected 1 to 256");
        assert_eq!(refused("elastic=3"), "augment: elastic is \"3\", expected alpha:sigma, as in 4:5");
        assert_eq!(refused("shift=two"), "augment: shift is \"two\", expected a number");
        assert_eq!(refused("shift=1,shift=2"), "augment: shift is given twice");
        for text in ["", "light=2", "flip=1", "shift", "shift=1,light", "shift=1,", "blur=2"] {
            assert!(refused(text).contains(" found, expected shift=X"), "{text}: {}", refused(text));
        }
    }

    proptest! {
        #[test]
        fn the_text_form_loses_nothing(
            amounts in prop::array::uniform7(0.0f32..1.0), cutout in 0u32..=1024, flip: bool
        ) {
            let [shift, rotate, scale, shear, alpha, sigma, noise] = amounts;
            let augment = Augment {
                shift: 256.0 * shift,
                rotate: 180.0 * rotate,
                scale: 0.9 * scale,
                shear: 60.0 * shear,
                elastic: Elastic { alpha: 255.0 * alpha + 1e-3, sigma: 1.0 + 100.0 * sigma },
                noise,
                cutout,
                flip,
            };
            prop_assert_eq!(augment.to_string().parse::<Augment>().unwrap(), augment);
            let json = serde_json::to_string(&augment).unwrap();
            prop_assert_eq!(serde_json::from_str::<Augment>(&json).unwrap(), augment);
        }

        #[test]
        fn no_text_panics(text in "[a-z=:,.0-9 -]{0,40}") {
            let _ = text.parse::<Augment>();
        }
    }
}
