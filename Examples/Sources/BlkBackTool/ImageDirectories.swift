import Glibc
import SystemPackage

/// Where the images may lie that the devices' own keys name: in some folders and those below them, or anywhere.
public struct ImageDirectories {
  /// Without symbolic links; empty for anywhere.
  private let folders: [FilePath]

  /// - Throws: a ``StoreFailure`` for a folder that is not there.
  public init(_ paths: [String]) throws(StoreFailure) {
    var folders: [FilePath] = []
    for path in paths {
      guard path.hasPrefix("/") else { throw StoreFailure("the folder of images \(path) is not absolute") }
      guard let folder = Self.resolved(path) else { throw StoreFailure("there is no folder of images \(path)") }
      folders.append(folder)
    }
    self.folders = folders
  }

  /// The image's path without symbolic links, provided that it lies where images may; as it is where they may lie anywhere. An
  /// image that is yet to be made is known by its folder.
  public func path(of image: String) throws(StoreFailure) -> String {
    guard !folders.isEmpty else { return image }
    guard image.hasPrefix("/") else {
      throw StoreFailure(
        "the image \(image) is not named by an absolute path, and only folders of images are served from")
    }
    let path: FilePath
    if let whole = Self.resolved(image) {
      path = whole
    } else {
      let named = FilePath(image).lexicallyNormalized()
      // A link that leads nowhere would be followed when the file is made.
      guard let name = named.lastComponent, !Self.isLink(named),
        let folder = Self.resolved(named.removingLastComponent().string)
      else { throw StoreFailure("there is no image \(image)") }
      path = folder.appending(name)
    }
    guard folders.contains(where: { path != $0 && path.starts(with: $0) }) else {
      let places = folders.map(\.string).joined(separator: ", ")
      throw StoreFailure("the image \(image) lies outside of the folders of images (\(places)): it is \(path)")
    }
    return path.string
  }

  /// With every symbolic link followed; nil where nothing is there.
  private static func resolved(_ path: String) -> FilePath? {
    // Safe: realpath allocates the string, which is copied and freed here.
    guard let text = unsafe realpath(path, nil) else { return nil }
    defer { unsafe free(text) }
    return FilePath(unsafe String(cString: text))
  }

  private static func isLink(_ path: FilePath) -> Bool {
    var status = stat()
    // Safe: the structure is ours.
    return unsafe lstat(path.string, &status) == 0 && status.st_mode & S_IFMT == S_IFLNK
  }
}
