//! Image folders: `DIR/<class>/*.jpg` (or `.png`), classes in alphabetical order.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use regrow_sparse_core::{Error, Result};

use super::images::{Images, Normalization};

/// All images below `dir`, decoded in parallel; classes are its subfolders in alphabetical order.
///
/// # Errors
/// No class folders, no images, an image that cannot be decoded or has another size than the first.
pub fn read(dir: &Path, normalization: Normalization) -> Result<Images> {
    let classes: Vec<PathBuf> = sorted(dir)?.into_iter().filter(|p| p.is_dir()).collect();
    let mut files = Vec::new();
    for (label, class) in classes.iter().enumerate() {
        let images = sorted(class)?.into_iter().filter(|p| is_image(p));
        files.extend(images.map(|path| (path, label as u8)));
    }
    let Some((first, _)) = files.first() else { return Err(Error::format(dir, "holds no class folders with images")) };
    let (size, _) = decode(first, None)?;
    let decoded: Vec<Vec<u8>> =
        files.par_iter().map(|(path, _)| decode(path, Some(size)).map(|d| d.1)).collect::<Result<_>>()?;
    let labels = files.iter().map(|(_, label)| *label).collect();
    Images::new([3, size[0], size[1]], classes.len(), decoded.concat(), labels, normalization)
}

fn sorted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).map_err(|e| Error::io(dir, e))?;
    let mut paths: Vec<PathBuf> =
        entries.map(|e| e.map(|e| e.path())).collect::<std::io::Result<_>>().map_err(|e| Error::io(dir, e))?;
    paths.sort();
    Ok(paths)
}

fn is_image(path: &Path) -> bool {
    is_jpeg(path) || has_extension(path, &["png"])
}

fn is_jpeg(path: &Path) -> bool {
    has_extension(path, &["jpg", "jpeg"])
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    known.iter().any(|known| extension.eq_ignore_ascii_case(known))
}

/// Height and width, and the bytes channel by channel.
fn decode(path: &Path, want: Option<[usize; 2]>) -> Result<([usize; 2], Vec<u8>)> {
    let (size, bytes) = if is_jpeg(path) { decode_jpeg(path)? } else { decode_png(path)? };
    if want.is_some_and(|want| want != size) {
        return Err(Error::format(
            path,
            format!("is {size:?}, others of its set {:?} (height, width)", want.unwrap_or_default()),
        ));
    }
    let planes = (0..3).flat_map(|c| bytes.iter().skip(c).step_by(3).copied().collect::<Vec<_>>());
    Ok((size, planes.collect()))
}

/// JPEG decoded like libjpeg-turbo, which PyTorch's users get through Pillow: another decoder's rounding of the chroma
/// changes a ResNet-20's accuracy on CIFAR-10 by seven images.
fn decode_jpeg(path: &Path) -> Result<([usize; 2], Vec<u8>)> {
    let file = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let image = libjpeg_turbo_rs::decompress_to(&file, libjpeg_turbo_rs::PixelFormat::Rgb)
        .map_err(|e| Error::format(path, e.to_string()))?;
    Ok(([image.height, image.width], image.data))
}

/// PNG of any colour type as 8-bit RGB; an alpha channel is left out.
fn decode_png(path: &Path) -> Result<([usize; 2], Vec<u8>)> {
    let bad = |e: png::DecodingError| Error::format(path, e.to_string());
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut decoder = png::Decoder::new(std::io::BufReader::new(file));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(bad)?;
    let size = reader.output_buffer_size().ok_or_else(|| Error::format(path, "is too large"))?;
    let mut bytes = vec![0; size];
    let info = reader.next_frame(&mut bytes).map_err(bad)?;
    bytes.truncate(info.buffer_size());
    let channels = info.color_type.samples();
    let pixel = |pixel: &[u8]| if channels < 3 { [pixel[0]; 3] } else { [pixel[0], pixel[1], pixel[2]] };
    let rgb = bytes.chunks_exact(channels).flat_map(pixel).collect();
    Ok(([info.height as usize, info.width as usize], rgb))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A square of one colour.
    fn write_png(path: &Path, side: u32, kind: png::ColorType, colour: &[u8]) {
        let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), side, side);
        encoder.set_color(kind);
        let pixels = colour.repeat((side * side) as usize);
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    }

    #[test]
    fn grey_and_transparent_pictures_are_read_as_colours() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, colour, want) in [
            (png::ColorType::Grayscale, &[7][..], [7, 7, 7]),
            (png::ColorType::GrayscaleAlpha, &[7, 9][..], [7, 7, 7]),
            (png::ColorType::Rgba, &[1, 2, 3, 4][..], [1, 2, 3]),
        ] {
            let path = dir.path().join("a.png");
            write_png(&path, 2, kind, colour);
            assert_eq!(decode(&path, None).unwrap(), ([2, 2], want.map(|c| [c; 4]).concat()), "{kind:?}");
        }
    }

    fn folder(images: &[(&str, u32, [u8; 3])]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, side, colour) in images {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            write_png(&path, *side, png::ColorType::Rgb, colour);
        }
        dir
    }

    #[test]
    fn classes_are_the_folders_in_order() {
        let dir = folder(&[("dog/1.png", 2, [1, 2, 3]), ("cat/1.png", 2, [4, 5, 6])]);
        let images = read(dir.path(), Normalization::bytes(&[0.0; 3], &[1.0; 3])).unwrap();
        assert_eq!((images.classes, images.labels.clone()), (2, vec![0, 1]));
        assert_eq!(images.bytes(0), [4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6]);
    }

    #[test]
    fn other_sizes_and_broken_files_are_named() {
        let norm = || Normalization::bytes(&[0.0; 3], &[1.0; 3]);
        let dir = folder(&[("a/1.png", 2, [0; 3]), ("a/2.png", 3, [0; 3])]);
        assert!(read(dir.path(), norm()).unwrap_err().to_string().contains("2.png: is [3, 3]"));
        std::fs::write(dir.path().join("a/2.png"), b"no image").unwrap();
        assert!(read(dir.path(), norm()).unwrap_err().to_string().contains("2.png"));
        assert!(
            read(tempfile::tempdir().unwrap().path(), norm()).unwrap_err().to_string().contains("no class folders")
        );
    }
}
