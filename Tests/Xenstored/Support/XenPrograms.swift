import Foundation

/// Xen's own programs, which `Tests/Xen/programs` unpacks from packages: xenstored, test-xenstore and the xenstore-* clients.
package enum XenPrograms {
  /// Why they cannot be had on this machine; nil when they are there. A test that needs them is skipped with it.
  package static var absence: String? { found.absence }

  package static func path(of program: String) -> String { folder + "/" + program }

  private static let root = URL(filePath: #filePath).appending(path: "../../../..").standardized.path

  /// Outside of what is committed.
  private static let folder = root + "/.rig/programs"

  private static let found: (absence: String?, failure: String?) = {
    do {
      let program = try ChildProgram([root + "/Tests/Xen/programs", folder])
      let lines = program.read().split(separator: "\n")
      switch program.end() {
      case 0: return (compilerAbsence, nil)
      case 77: return ("xenstored cannot be had: \(lines.last ?? "Tests/Xen/programs does not say why")", nil)
      case let status: return (nil, "Tests/Xen/programs ends with \(status): \(lines.last ?? "")")
      }
    } catch { return (nil, "\(error)") }
  }()

  /// Swift's own, which need not be on the PATH where Swift is.
  private static let compiler = "clang"

  private static var compilerAbsence: String? {
    do throws(XenstoredError) {
      let program = try ChildProgram([compiler, "--version"])
      _ = program.read()
      _ = program.end()
      return nil
    } catch { return "xenstored cannot be had: \(error): put Swift's folder of programs on the PATH" }
  }

  /// The library that lets xenstored run without a hypervisor, compiled once a run.
  static func stub() throws(XenstoredError) -> String { try compiledStub.get() }

  private static let compiledStub: Result<String, XenstoredError> = {
    if let problem = found.failure ?? found.absence { return .failure(XenstoredError(problem)) }
    let (source, library) = (root + "/Tests/Xenstored/stub.c", folder + "/stub.so")
    // Another run of the tests may be using the one that is there.
    let fresh = "\(library).\(getpid())"
    do throws(XenstoredError) {
      let program = try ChildProgram([
        compiler, "-std=gnu11", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", fresh,
        source,
      ])
      let messages = program.read()
      guard program.end() == 0 else {
        return .failure(XenstoredError("\(compiler) cannot compile \(source): \(messages)"))
      }
    } catch { return .failure(error) }
    guard unsafe rename(fresh, library) == 0 else {
      return .failure(XenstoredError("cannot put the stub into \(folder): \(ChildProgram.words(for: errno))"))
    }
    return .success(library)
  }()
}
