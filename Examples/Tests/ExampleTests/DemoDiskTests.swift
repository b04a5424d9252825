import Crypto
import Foundation
import Testing

/// The half of `demo` that copies a disk.
final class DemoDiskTests {
  private let demo = Tool(name: "demo")
  private let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "swift-xen-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  /// A file whose bytes differ from sector to sector.
  private func image(byteCount: Int) throws -> URL {
    let file = folder.appending(path: "disk.img")
    try Data((0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 9) }).write(to: file)
    return file
  }

  /// Neither a multiple of a request's largest size nor of a page.
  @Test func copyIsTheImage() throws {
    let image = try image(byteCount: 300 * 4096 + 512)
    let copy = folder.appending(path: "copy.img")
    let crossed = folder.appending(path: "crossed.pcap")
    let run = try demo.run("--image", image.path, "--copy", copy.path, "--crossed", crossed.path)
    #expect(run.exitCode == 0, "\(run.error)")
    let bytes = try Data(contentsOf: image)
    let copied = try Data(contentsOf: copy)
    #expect(copied == bytes)
    let hash = SHA256.hash(data: bytes).map { String(format: "%02x", $0) }.joined()
    let lines = run.output.split(separator: "\n")
    for side in ["the source", "what the guest saw", "the copy"] {
      #expect(lines.contains { $0.hasPrefix("SHA-256 of \(side) ") && $0.hasSuffix(" \(hash)") }, "\(side)")
    }
  }

  @Test func missingImageIsNamed() throws {
    let image = folder.appending(path: "none.img").path
    try demo.expectRefusal("the image \(image) cannot be opened: No such file or directory", "--image", image)
  }

  @Test func emptyImageIsRefused() throws {
    let image = try image(byteCount: 0).path
    try demo.expectRefusal("the image \(image) is empty: a disk has at least one sector", "--image", image)
  }

  @Test(arguments: [1, 511, 513]) func partOfASectorIsRefused(byteCount: Int) throws {
    let image = try image(byteCount: byteCount).path
    try demo.expectRefusal(
      "the image \(image) has \(byteCount) bytes, which is not a multiple of 512: pad it or give another one",
      "--image",
      image)
  }

  @Test func folderIsNoImage() throws {
    try demo.expectRefusal("the image \(folder.path) is neither a file nor a block device", "--image", folder.path)
  }

  @Test func copyOverTheImageIsRefusedAlsoThroughALink() throws {
    let image = try image(byteCount: 4096)
    let bytes = try Data(contentsOf: image)
    let link = folder.appending(path: "link.img")
    try FileManager.default.createSymbolicLink(at: link, withDestinationURL: image)
    for copy in [image.path, link.path] {
      try demo.expectRefusal(
        "the copy would write over the image itself: \(copy)", "--image", image.path, "--copy", copy)
    }
    #expect(try Data(contentsOf: image) == bytes)
  }

  /// In a folder that is not there, and in a folder's own place: nobody may write these, not even root.
  @Test(arguments: ["none/copy.img", "."]) func copyThatCannotBeWrittenIsNamed(place: String) throws {
    let image = try image(byteCount: 512).path
    let copy = folder.path + "/" + place
    try demo.expectRefusal("the copy \(copy) cannot be written", "--image", image, "--copy", copy)
  }
}
