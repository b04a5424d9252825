import ArgumentParser
import BlockStores

/// How images are read and written: the options of every program that serves some.
public struct ImageOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Whether the guests' bytes pass this machine's page cache by: on, off, or automatic, which is on where the file can do it.
      """, valueName: "mode"))
  var direct = DirectName.automatic

  @Flag(help: "Make a system call for each request, in place of one for a whole batch through an io_uring.")
  var noIoUring = false

  public init() {}

  /// The same for a ``FileStore``.
  public var store: FileStoreOptions {
    var options = FileStoreOptions(direct: direct.mode)
    options.usesIOUring = !noIoUring
    return options
  }
}

enum DirectName: String, CaseIterable, ExpressibleByArgument {
  case on, off, automatic

  var mode: FileStoreOptions.Direct {
    switch self {
    case .on: .on
    case .off: .off
    case .automatic: .automatic
    }
  }
}
