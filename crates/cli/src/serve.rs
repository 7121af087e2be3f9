//! `regrow serve`: lend this machine's device to others.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::Result;

/// Lend a device to other machines until Ctrl-C: anyone with the ticket can compute on it
#[derive(clap::Args)]
#[command(after_help = "Examples:
  regrow serve
  regrow --device cuda serve --bind 10.0.0.7:4433 --lives 2d --ticket-file peer.ticket
  regrow --device remote:@peer.ticket eval net.safetensors --arch mlp-small --dataset digits

The ticket is a secret. It names this peer's key, so nobody else can answer for it, and the line is encrypted; no
relay and no name service is asked. Sessions that were opened in time go on when it has expired.")]
pub struct Args {
    /// The address that others dial; this machine only by default. Port 0 means any free port
    #[arg(long, default_value = "127.0.0.1:0", value_name = "IP:PORT")]
    bind: SocketAddr,
    /// How long the ticket is valid: seconds, or a number with s, m, h or d
    #[arg(long, default_value = "12h", value_parser = duration)]
    lives: Duration,
    /// Write the ticket to this file, readable by its owner only, instead of printing it
    #[arg(long, value_name = "FILE")]
    ticket_file: Option<PathBuf>,
    /// Use Burn's older transport, a web socket: not encrypted, so on loopback only
    #[arg(long)]
    web_socket: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[number.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        other => return Err(format!("`{other}` is no unit of time: use s, m, h or d")),
    };
    match number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)) {
        Some(seconds @ 1..=31_536_000) => Ok(Duration::from_secs(seconds)),
        Some(_) => Err("a ticket lives for a second at least and a year at most".into()),
        None => Err("a whole number is wanted, such as 90 or 12h".into()),
    }
}

/// Lends the device of this process.
#[cfg(feature = "remote")]
pub fn run(args: &Args, out: &mut dyn Write) -> Result<()> {
    use regrow_checkpoint::atomic;
    use regrow_device as device;
    use regrow_device::remote::serve::{serve, serve_web_socket};

    let here = device::current();
    let lent = match args.web_socket {
        true => serve_web_socket(&here, args.bind, args.lives)?,
        false => serve(&here, args.bind, args.lives)?,
    };
    // Write the ticket first; without it no peer can connect.
    let ticket = match &args.ticket_file {
        Some(file) => {
            atomic::write_private(file, format!("{}\n", lent.name()).as_bytes())?;
            format!("written: {}", file.display())
        }
        None => lent.name().to_string(),
    };
    let (title, hours) = (device::title(&here), args.lives.as_secs_f64() / 3600.0);
    writeln!(out, "{title} is lent for {hours:.1} hours to whoever has the ticket; Ctrl-C ends it\n{ticket}")?;
    out.flush()?;
    Ok(lent.wait()?)
}

/// Reports the missing feature.
#[cfg(not(feature = "remote"))]
pub fn run(args: &Args, _: &mut dyn Write) -> Result<()> {
    let Args { bind, .. } = args;
    Err(crate::error::Error::Argument(format!(
        "lending a device at {bind} was not compiled in (cargo feature `remote`)"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(
            (seconds("90"), seconds("2m"), seconds("12h"), seconds("1d")),
            (Ok(90), Ok(120), Ok(43_200), Ok(86_400))
        );
        for bad in ["", "h", "0", "1w", "1.5h", "-3", "400d", "99999999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
