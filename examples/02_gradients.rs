//! Gradients: fit a line to points by hand-written gradient descent.
//!
//! `cargo run --release --example 02_gradients`

use mappa::{Device, Result, Tensor};

fn main() -> Result<()> {
    let device = Device::auto_blocking()?;
    let x = Tensor::from_slice(&device, &[4], &[0.0f32, 1.0, 2.0, 3.0])?;
    let y = Tensor::from_slice(&device, &[4], &[1.0f32, 3.0, 5.0, 7.0])?;
    let (mut slope, mut shift) = (Tensor::zeros(&device, &[1])?, Tensor::zeros(&device, &[1])?);
    for step in 0..200 {
        let (w, b) = (slope.requires_grad(), shift.requires_grad());
        let error = x.mul(&w)?.add(&b)?.sub(&y)?;
        let loss = error.mul(&error)?.mean(None, false)?;
        loss.backward()?;
        if step % 50 == 0 {
            println!("step {step:3}: loss {:.5}", loss.item_blocking()?);
        }
        let descend = |value: &Tensor, leaf: &Tensor| match leaf.grad() {
            Some(gradient) => value.sub(&gradient.affine(0.1, 0.0)?),
            None => Ok(value.clone()),
        };
        (slope, shift) = (descend(&slope, &w)?, descend(&shift, &b)?);
    }
    println!("y = {:.3} x + {:.3}", slope.item_blocking()?, shift.item_blocking()?);
    Ok(())
}
