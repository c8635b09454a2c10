//! Tests of the storage: a folder, and S3 against a small HTTP server that remembers what it was sent.

use std::collections::BTreeMap;
use std::sync::Mutex;

use wiremock::matchers::any;
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::*;

fn folder() -> (tempfile::TempDir, Storage) {
    let folder = tempfile::tempdir().unwrap();
    let place = contract::Storage::Path(folder.path().to_str().unwrap().into());
    let mut storage = Storage::open(&place, &Credentials::default()).unwrap();
    storage.part_bytes = 64;
    (folder, storage)
}

fn names(folder: &std::path::Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_file_comes_back_with_the_digest_and_size_that_were_reported() {
    let (_folder, storage) = folder();
    for size in [0, 1, 63, 64, 65, 128, 1000] {
        let content: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut writer = storage.writer("a/b/data.copy", 0).unwrap();
        for piece in content.chunks(37) {
            writer.write(piece).await.unwrap();
        }
        let stored = writer.finish().await.unwrap();
        assert_eq!(stored.bytes, size);
        assert_eq!(stored.digest, digest(&content));
        let mut reader = storage.get_stream("a/b/data.copy").await.unwrap();
        let mut read = Vec::new();
        while let Some(piece) = reader.next().await.unwrap() {
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, content);
        assert_eq!(reader.finish(), stored);
    }
}

#[test]
fn the_digest_is_that_of_every_other_tool() {
    assert_eq!(digest(b"abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#[tokio::test]
async fn an_unfinished_file_is_never_visible() {
    let (folder, storage) = folder();
    let mut writer = storage.writer("part.copy", 0).unwrap();
    writer.write(&[7; 500]).await.unwrap();
    assert_eq!(names(folder.path()).len(), 1, "its parts lie somewhere");
    assert_eq!(storage.list("").await.unwrap(), []);
    assert!(matches!(storage.get_stream("part.copy").await, Err(StorageError::Missing { .. })));
    // What a killed process leaves behind hinders no later one.
    std::mem::forget(writer);
    let mut writer = storage.writer("part.copy", 0).unwrap();
    writer.write(&[8; 500]).await.unwrap();
    writer.finish().await.unwrap();
    assert_eq!(storage.list("").await.unwrap(), [("part.copy".to_owned(), 500)]);
    assert_eq!(storage.get_bytes("part.copy", 500).await.unwrap(), vec![8; 500]);
}

#[tokio::test]
async fn an_aborted_file_leaves_nothing() {
    let (folder, storage) = folder();
    let failing =
        futures::stream::iter([Ok(Bytes::from(vec![1; 300])), Err(std::io::Error::other("the sender went away"))]);
    assert!(matches!(storage.put_stream("part.copy", failing).await, Err(StorageError::Feed { .. })));
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_read_has_a_bound() {
    let (_folder, storage) = folder();
    storage.put_bytes("a.json", vec![b'x'; 101]).await.unwrap();
    assert!(matches!(
        storage.get_bytes("a.json", 100).await,
        Err(StorageError::TooLarge { bytes: 101, limit: 100, .. })
    ));
    assert_eq!(storage.get_bytes("a.json", 101).await.unwrap().len(), 101);
}

#[tokio::test]
async fn of_two_writers_of_a_new_file_one_wins() {
    let (_folder, storage) = folder();
    storage.put_new_bytes("manifest.json", "one").await.unwrap();
    assert!(matches!(storage.put_new_bytes("manifest.json", "two").await, Err(StorageError::Exists { .. })));
    assert_eq!(storage.get_bytes("manifest.json", 9).await.unwrap(), "one");
}

#[tokio::test]
async fn a_folder_is_deleted_with_what_lies_below_it_and_nothing_else() {
    let (folder, storage) = folder();
    for path in ["a/1/x", "a/1/y/z", "a/2/x", "a/10/x"] {
        storage.put_bytes(path, "x").await.unwrap();
    }
    storage.delete_folder("a/1").await.unwrap();
    storage.delete_folder("a/1").await.unwrap();
    // What a killed writer leaves goes too.
    let mut killed = storage.writer("a/2/y/part", 0).unwrap();
    killed.write(&[1; 200]).await.unwrap();
    std::mem::forget(killed);
    storage.delete_folder("a/2/y").await.unwrap();
    assert!(!folder.path().join("a/2/y").exists());
    let mut left = storage.list("a").await.unwrap();
    left.sort();
    assert_eq!(left, [("a/10/x".to_owned(), 1), ("a/2/x".to_owned(), 1)]);
    assert_eq!(storage.size("a/2/x").await.unwrap(), Some(1));
    assert_eq!(storage.size("a/1/x").await.unwrap(), None);
}

#[tokio::test]
async fn a_path_never_leaves_the_root() {
    let (_folder, storage) = folder();
    for path in ["../x", "a/../../x", "a//x"] {
        assert!(matches!(storage.put_bytes(path, "x").await, Err(StorageError::Path { .. })));
    }
}

#[test]
fn a_missing_folder_is_a_misconfiguration() {
    let place = contract::Storage::Path("/nonexistent/godwit".into());
    let error = Storage::open(&place, &Credentials::default()).unwrap_err();
    assert!(error.is_misconfigured());
}

#[test]
fn a_very_large_file_stays_within_the_number_of_parts() {
    let (_folder, storage) = folder();
    let writer = storage.writer("x", 1 << 40).unwrap();
    assert!((1_u64 << 40) / writer.part_bytes as u64 <= 10_000);
}

/// As much of S3 as the storage uses: objects appear with a plain put or with the completion of an upload.
#[derive(Clone, Default)]
struct Bucket(Arc<Mutex<BucketState>>);

#[derive(Default)]
struct BucketState {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<u32, Vec<u8>>,
    refuse: bool,
}

impl Respond for Bucket {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut state = self.0.lock().unwrap();
        if state.refuse {
            return ResponseTemplate::new(403);
        }
        let key = request.url.path().trim_start_matches("/crm/").to_owned();
        let query: BTreeMap<String, String> = request.url.query_pairs().into_owned().collect();
        let done = |body: &str| ResponseTemplate::new(200).set_body_string(body);
        match (request.method.as_str(), query.get("partNumber")) {
            ("PUT", Some(part)) => {
                state.parts.insert(part.parse().unwrap(), request.body.clone());
                ResponseTemplate::new(200).insert_header("etag", "p")
            }
            ("PUT", None) => {
                if request.headers.contains_key("if-none-match") && state.objects.contains_key(&key) {
                    return ResponseTemplate::new(412);
                }
                state.objects.insert(key, request.body.clone());
                ResponseTemplate::new(200).insert_header("etag", "e")
            }
            ("POST", _) if query.contains_key("uploads") => {
                done("<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
            }
            ("POST", _) => {
                let whole = std::mem::take(&mut state.parts).into_values().flatten();
                let whole = whole.collect();
                state.objects.insert(key, whole);
                done("<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>")
            }
            ("DELETE", _) => {
                state.parts.clear();
                ResponseTemplate::new(204)
            }
            _ => match state.objects.get(&key) {
                Some(object) => ResponseTemplate::new(200)
                    .insert_header("etag", "e")
                    .insert_header("last-modified", "Sat, 01 Aug 2026 00:00:00 GMT")
                    .set_body_bytes(object.clone()),
                None => ResponseTemplate::new(404),
            },
        }
    }
}

async fn bucket() -> (MockServer, Bucket, Storage) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let server = MockServer::start().await;
    let bucket = Bucket::default();
    Mock::given(any()).respond_with(bucket.clone()).mount(&server).await;
    let place = contract::Storage::S3(contract::S3Storage {
        bucket: "crm".into(),
        prefix: "/eu/".into(),
        endpoint: Some(server.uri()),
        region: None,
    });
    let credentials =
        Credentials { access_key_id: Some("id".into()), secret_access_key: Some("secret".into()), session_token: None };
    let mut storage = Storage::open(&place, &credentials).unwrap();
    storage.part_bytes = 64;
    (server, bucket, storage)
}

#[tokio::test]
async fn a_bucket_serves_the_same_calls_below_its_prefix() {
    let (_server, bucket, storage) = bucket().await;
    let mut writer = storage.writer("b/large.copy", 0).unwrap();
    writer.write(&[5; 150]).await.unwrap();
    assert!(bucket.0.lock().unwrap().objects.is_empty());
    let stored = writer.finish().await.unwrap();
    assert_eq!(stored.digest, digest(&[5; 150]));
    storage.put_new_bytes("b/small.json", "{}").await.unwrap();
    assert!(matches!(storage.put_new_bytes("b/small.json", "{}").await, Err(StorageError::Exists { .. })));
    let keys: Vec<String> = bucket.0.lock().unwrap().objects.keys().cloned().collect();
    assert_eq!(keys, ["eu/b/large.copy", "eu/b/small.json"]);
    assert_eq!(storage.get_bytes("b/large.copy", 150).await.unwrap(), vec![5; 150]);
    assert!(matches!(storage.get_bytes("b/other", 1).await, Err(StorageError::Missing { .. })));
}

#[tokio::test]
async fn a_bucket_that_refuses_is_a_lack_of_permission() {
    let (_server, bucket, storage) = bucket().await;
    bucket.0.lock().unwrap().refuse = true;
    let error = storage.put_bytes("a", "x").await.unwrap_err();
    assert!(error.is_not_permitted());
}
