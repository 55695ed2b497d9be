//! Lists the public API that rustdoc's JSON describes, an item a line.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let json = std::env::args_os().nth(1).ok_or("usage: api FILE.json")?;
    let api = public_api::Builder::from_rustdoc_json(json).omit_blanket_impls(true).build()?;
    print!("{api}");
    Ok(())
}
