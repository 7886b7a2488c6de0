//! Modules made of modules.

use super::{Context, Module, Owned, Then, join};
use crate::error::Result;
use crate::tensor::Tensor;

/// Children applied one after the other.
#[derive(Default)]
pub struct Sequential {
    children: Vec<(String, Box<dyn Module>)>,
}

impl Sequential {
    /// No children: the identity.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a child named by its position, as PyTorch's `Sequential` names them: `0`, `1` ...
    pub fn then(self, module: impl Module + 'static) -> Self {
        let name = self.children.len().to_string();
        self.named(&name, module)
    }

    /// Appends a child with a name of its own, different from those of its siblings.
    pub fn named(self, name: &str, module: impl Module + 'static) -> Self {
        self.named_box(name, Box::new(module))
    }

    /// As [`Sequential::named`], of a module whose type is not known.
    pub fn named_box(mut self, name: &str, module: Box<dyn Module>) -> Self {
        self.children.push((name.to_owned(), module));
        self
    }

    /// Applies some of the children, one after the other.
    ///
    /// # Errors
    /// Those of the children.
    pub fn forward_range(&self, ctx: &mut Context, range: std::ops::Range<usize>, x: &Tensor) -> Result<Tensor> {
        self.run(ctx, range, x, None)
    }

    /// A layer and the activation behind it are one call, the last layer and `then` too; where [`Context::folding`] says so, with the norm between them.
    fn run(&self, ctx: &mut Context, range: std::ops::Range<usize>, x: &Tensor, then: Option<Then>) -> Result<Tensor> {
        let mut children = self.children[range].iter().peekable();
        let mut y = x.clone();
        while let Some((name, module)) = children.next() {
            let norm = children.peek().filter(|_| ctx.folds()).and_then(|(_, next)| next.as_norm());
            if norm.is_some() {
                children.next();
            }
            let activation = children.peek().filter(|_| !ctx.is_observed()).and_then(|(_, next)| next.as_then());
            if activation.is_some() {
                children.next();
            }
            let last = if children.peek().is_none() { then } else { None };
            let first = activation.or(last);
            let first = norm.map_or(first, |norm| Some(Then::Norm(norm, first.as_ref())));
            y = ctx.call_then(name, &**module, &y, first)?;
            if let (Some(_), Some(then)) = (activation, last) {
                y = then.apply(&y)?;
            }
        }
        match then {
            Some(then) if self.children.is_empty() => then.apply(&y),
            _ => Ok(y),
        }
    }

    /// The children with their names, in order.
    pub fn children(&self) -> impl Iterator<Item = (&str, &dyn Module)> {
        self.children.iter().map(|(name, module)| (name.as_str(), &**module))
    }
}

impl Module for Sequential {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        self.run(ctx, 0..self.children.len(), x, None)
    }

    fn forward_then(&self, ctx: &mut Context, x: &Tensor, then: Then) -> Result<Tensor> {
        self.run(ctx, 0..self.children.len(), x, Some(then))
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        for (name, module) in &self.children {
            module.visit(&join(path, name), visitor);
        }
    }
}

/// `relu(body(x) + shortcut(x))`, the residual block of He et al. 2015, arXiv:1512.03385.
///
/// The body's children are named as if they were the block's own (`conv1`, `bn1` ...); the shortcut is `downsample`, as in torchvision.
pub struct Residual {
    body: Sequential,
    shortcut: Option<Sequential>,
}

impl Residual {
    /// A block; without a `shortcut` the input itself is added.
    pub fn new(body: Sequential, shortcut: Option<Sequential>) -> Self {
        Residual { body, shortcut }
    }
}

impl Module for Residual {
    fn forward(&self, ctx: &mut Context, x: &Tensor) -> Result<Tensor> {
        let beside = |ctx: &mut Context| match &self.shortcut {
            Some(shortcut) => ctx.call("downsample", shortcut, x),
            None => Ok(x.clone()),
        };
        // In the order of their names, for who looks on; else the shortcut first, for the body to add.
        if ctx.is_observed() {
            let y = self.body.forward(ctx, x)?;
            return Then::AddRelu(&beside(ctx)?).apply(&y);
        }
        let beside = beside(ctx)?;
        self.body.forward_then(ctx, x, Then::AddRelu(&beside))
    }

    fn visit(&self, path: &str, visitor: &mut dyn FnMut(String, Owned)) {
        self.body.visit(path, visitor);
        if let Some(shortcut) = &self.shortcut {
            shortcut.visit(&join(path, "downsample"), visitor);
        }
    }
}

/// `[N, ..] -> [N, rest]`.
#[derive(Debug, Clone, Copy)]
pub struct Flatten;

impl Module for Flatten {
    fn forward(&self, _: &mut Context, x: &Tensor) -> Result<Tensor> {
        x.flatten()
    }
}
