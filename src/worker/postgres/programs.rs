//! PostgreSQL's client programs as Godwit runs them: what each `pg_dump` is told, and what becomes of what it says.
//! Used by `schema` and `dump`. Must not show a password in a process list, and must not ask less of a server's certificate than
//! the worker's own sessions do.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;
use tokio_postgres::Config;

use super::sandbox;
use super::tls::{self, Verify};
use crate::worker::error::Error;

/// Longest text of a program's complaint, in characters.
const MAX_COMPLAINT: usize = 400;
/// Where systems keep the authorities that they trust, in one file: libpq wants one named, our own sessions find it themselves.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// One of the programs, of the newest version that this machine has.
pub fn program(name: &'static str) -> Result<Command, Error> {
    let folder = sandbox::programs().map_err(failed(name))?;
    let mut command = Command::new(folder.join(name));
    command.env("LC_ALL", "C");
    Ok(command)
}

/// A dump of schema, without data and without what belongs to a server rather than to its tables.
pub fn pg_dump(uri: &str) -> Result<Command, Error> {
    let mut command = program("pg_dump")?;
    if let Some(authorities) = authorities_for(uri) {
        command.env("PGSSLROOTCERT", authorities);
    }
    let (uri, password) = without_password(uri);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command.args([
        "--schema-only",
        "--no-publications",
        "--no-subscriptions",
        "--no-tablespaces",
        "--no-security-labels",
        "--lock-wait-timeout=10000",
        "--encoding=UTF8",
    ]);
    command.arg(format!("--dbname={uri}"));
    Ok(command)
}

/// Runs a program to its end; its standard output.
pub async fn output(mut command: Command, name: &'static str) -> Result<Vec<u8>, Error> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.map_err(failed(name))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(failed(name)(text.trim().chars().take(MAX_COMPLAINT).collect::<String>()))
}

pub fn failed<E: std::fmt::Display>(program: &'static str) -> impl Fn(E) -> Error {
    move |reason| Error::Program { program: program.into(), reason: reason.to_string() }
}

/// The file to verify the server with, where the URI asks for that and names none.
fn authorities_for(uri: &str) -> Option<&'static str> {
    let request = tls::split_uri(uri);
    let wanted = request.verify != Verify::Nothing && request.root_certificate.is_none();
    AUTHORITIES.into_iter().find(|path| wanted && Path::new(path).is_file())
}

/// A URI without its password, and the password for the environment: arguments are visible to other processes.
fn without_password(uri: &str) -> (String, Option<String>) {
    let password = tls::split_uri(uri).uri.parse::<Config>().ok().and_then(|config| {
        let bytes = config.get_password()?;
        String::from_utf8(bytes.to_vec()).ok()
    });
    let Some((scheme, rest)) = uri.split_once("://") else {
        return (uri.to_owned(), password);
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    let authority = match authority.rsplit_once('@') {
        Some((user, host)) => {
            let user = user.split_once(':').map_or(user, |(user, _)| user);
            format!("{user}@{host}")
        }
        None => authority.to_owned(),
    };
    // `sslrootcert=system` is of libpq 16 and later; the environment names the file instead.
    let is_kept = |parameter: &&str| !parameter.starts_with("password=") && *parameter != "sslrootcert=system";
    let tail = match tail.split_once('?') {
        Some((path, query)) => {
            let kept: Vec<&str> = query.split('&').filter(is_kept).collect();
            format!("{path}?{}", kept.join("&"))
        }
        None => tail.to_owned(),
    };
    (format!("{scheme}://{authority}{tail}"), password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_never_becomes_an_argument() {
        for (uri, expected, password) in [
            (
                "postgresql://u:p%40ss@h:5432/db?sslmode=require",
                "postgresql://u@h:5432/db?sslmode=require",
                Some("p@ss"),
            ),
            (
                "postgresql://u@h/db?password=secret&connect_timeout=3",
                "postgresql://u@h/db?connect_timeout=3",
                Some("secret"),
            ),
            ("postgresql://h/db", "postgresql://h/db", None),
            ("postgresql://u:a@h?sslmode=verify-full", "postgresql://u@h?sslmode=verify-full", Some("a")),
            (
                "postgresql://u@h/db?sslmode=verify-full&sslrootcert=system",
                "postgresql://u@h/db?sslmode=verify-full",
                None,
            ),
        ] {
            assert_eq!(without_password(uri), (expected.to_owned(), password.map(ToOwned::to_owned)));
        }
    }

    #[test]
    fn a_server_that_is_to_be_verified_is_verified_with_a_file() {
        let here = AUTHORITIES.into_iter().find(|path| Path::new(path).is_file());
        for (query, expected) in [
            ("sslmode=verify-full", here),
            ("sslmode=verify-ca", here),
            ("sslmode=verify-full&sslrootcert=system", here),
            ("sslmode=verify-full&sslrootcert=/own/ca.pem", None),
            ("sslmode=require", None),
        ] {
            assert_eq!(authorities_for(&format!("postgresql://h/db?{query}")), expected, "{query}");
        }
    }
}
