from pennyweight.main import main

main()
