//! The committed CustomResourceDefinitions are what the code says, byte for byte.
//! Regenerate them with `cargo run -- crds --out crds`.

#[test]
fn committed_definitions_are_what_the_code_generates() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let wanted = godwit::api::crd::files().unwrap();
    let mut found: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    found.sort();
    let mut names: Vec<_> = wanted.iter().map(|(name, _)| name.clone()).collect();
    names.sort();
    assert_eq!(found, names, "files in crds/");
    for (name, text) in wanted {
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap();
        assert!(committed == text, "crds/{name} is stale: run `cargo run -- crds --out crds`");
    }
}
